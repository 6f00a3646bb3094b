"""The command `report`: what it writes, says and refuses, once and while a run goes on."""

import fcntl
import json

import pytest
from support.reported_runs import arc, completion, write_run

from rlif_jax import report
from rlif_jax.report import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rollouts = {20: [completion("print(1)", True)]}
    return write_run(tmp_path / "runs" / "one", arc(0.3, 0.1), rollouts, steps=40)


def test_it_writes_what_is_asked_for(run, capsys):
    write_run(run.parent / "two", arc(0.2, 0.1))
    main(["runs", "--out=r.html", "--figure=f.png", "--csv=m.csv", "--title=Two runs"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("wrote r.html, 0.")
    assert said[0].endswith(" MB: 2 runs")
    assert said[1:] == ["wrote f.png: 3 panels, 2 runs", "wrote m.csv: 310 values"]
    page = (run.parent.parent / "r.html").read_text("utf-8")
    assert "<title>Two runs · rlif_jax</title>" in page
    assert "stopped at step 20 of 40" in page


def test_results_of_evaluations_stand_beside_runs(run, capsys):
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75}
    result = {
        "arguments": {"temperature": 0.8, "max_new_tokens": 64},
        "model": {"source": "hf:org/model"},
        "data": {"name": "humaneval", "problems": 164},
        "scores": {"n": 2, "overall": {"statistics": {"avg@2": estimate}}},
        "certainty": {"rewards": {}},
    }
    (run.parent / "he.json").write_text(json.dumps(result))
    main(["runs/one", "runs/he.json", "--out=r.html"])
    assert capsys.readouterr().out.endswith("MB: 1 run, 1 evaluation\n")
    main(["runs/he.json", "--out=r.html"])
    assert "hf:org/model on humaneval, 164 problems" in (run.parent.parent / "r.html").read_text()


def test_watch_writes_until_the_run_has_ended(run, capsys, monkeypatch):
    lock = (run / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    waits, pages = [], []
    monkeypatch.setattr(
        report, "_write", lambda path, data, option: pages.append(data.decode("utf-8"))
    )

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            lock.close()

    monkeypatch.setattr(report.time, "sleep", wait)
    main(["runs/one", "--out=r.html", "--watch"])
    assert waits == [report.WATCH_S] * 2
    assert capsys.readouterr().out.count("wrote r.html") == 3
    # The last page stays as it is: its reader may be in the middle of a completion.
    assert ['http-equiv="refresh"' in page for page in pages] == [True, True, False]


def test_the_page_is_sent_to_the_trackers_of_the_run(run, capsys):
    mlflow = pytest.importorskip("mlflow")
    config = json.loads((run / "config.json").read_text())
    config["config"]["log"]["to"] = ["mlflow"]
    (run / "config.json").write_text(json.dumps(config))
    main(["runs/one", "--out=r.html", "--send"])
    assert "mlflow: " in capsys.readouterr().out
    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert "r.html" in [file.path for file in client.list_artifacts(found.info.run_id)]
    assert found.data.metrics["reward/mean"] == 1.0


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["runs/one"], "nothing is asked for: give --out FILE.html"),
        (["nowhere", "--out=r.html"], "nowhere does not exist. Give run folders"),
        (["runs/one", "--out=absent/r.html"], "absent/r.html cannot be written"),
        (["runs/one", "--out=r.html", "--keys", "a/b"], "--keys a/b: no run has it"),
        (["runs/one", "--out=r.html", "--window=0"], "--window 0 must be at least 1"),
        (["runs/one", "--csv=m.csv", "--send"], "--send sends a page that is written once"),
        (["runs/one", "--csv=m.csv", "--keys", "a/b"], "--keys chooses what is drawn: give --out"),
        (["runs/one", "--csv=absent/m.csv"], "absent/m.csv cannot be written: No such file"),
        (["runs/one", "--figure=f.nothing"], "f.nothing cannot be written: Format 'nothing'"),
        (["runs/one", "--figure=f"], "f cannot be written"),
        (["none.json", "--out=r.html"], "none.json cannot be read as a result"),
    ],
)
def test_what_cannot_be_shown_is_refused(run, capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not (run.parent.parent / "r.html").exists()
