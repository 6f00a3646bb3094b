"""What trackers get of a run, read back by their own packages; runs that resume, and failures."""

import dataclasses
import importlib.util
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from support.small_runs import config, refused
from support.tracker_files import read

from rlif_jax.config import Config, Log
from rlif_jax.errors import UserError
from rlif_jax.run.artifact import send_artifact
from rlif_jax.run.log import RunLog
from rlif_jax.run.provenance import resolved
from rlif_jax.run.trackers.tracked import plain_key

TRACKERS = ["wandb", "mlflow", "trackio"]


@pytest.fixture(autouse=True)
def own_settings(monkeypatch, tmp_path_factory):
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nowhere")  # where wandb keeps keys
    # Trackio takes one folder a process, which these runs share.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.getbasetemp() / "trackio"))


def tracked(*names: str) -> Config:
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    return Config(name="a run", seed=7, log=Log(to=("tensorboard", *names)))


def records(step: int) -> list[dict]:
    """40 completions of 10 problems, the first of which is long and no Unicode text."""
    rows = [
        {"problem": f"p{row // 4}", "sample": row % 4, "verdict": None, "reward": step + row / 64}
        for row in range(40)
    ]
    texts = ["\ud800" + "x" * 5000, *("def f(): ...\r\n\u2028" for _ in range(39))]
    return [{**row, "length": 3, "completion": text} for row, text in zip(rows, texts, strict=True)]


def write(folder: Path, cfg: Config, steps: range, shift: float = 0.0, **options) -> None:
    notes = []
    with RunLog(folder, cfg, note=notes.append, **options) as log:
        for step in steps:
            if step:
                log.rollouts(step, records(step))
            values = {"reward/mean": step / 3 + shift, "grad/norm": 1e-30 * step + shift}
            if step % 2 == 0:
                values["eval/starter/avg@4"] = step / 7
            log.metrics(step, values)
    assert not [note for note in notes if "warning" in note]


def assert_same(tracker: str, folder: Path, cfg: Config) -> None:
    """A tracker has all that metrics.jsonl has, and nothing besides."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    expected = {row.pop("step"): row for row in rows}
    if tracker == "mlflow":
        expected = {s: {plain_key(k): v for k, v in row.items()} for s, row in expected.items()}
    found = read(tracker, folder)
    assert found.metrics == expected
    assert found.config == resolved(cfg)
    assert found.name == "a-run" if tracker == "trackio" else "a run"
    assert sorted(found.completions) == sorted(step for step in expected if step)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_it_has_all_steps_once_after_a_resume_that_drops_some(tracker, tmp_path):
    cfg = tracked(tracker)
    write(tmp_path, cfg, range(5))
    assert_same(tracker, tmp_path, cfg)
    before = json.loads((tmp_path / "trackers.json").read_text())
    write(tmp_path, cfg, range(5, 6), resume_step=4)  # which drops nothing
    assert_same(tracker, tmp_path, cfg)
    assert json.loads((tmp_path / "trackers.json").read_text()) == before  # the same run
    changed = dataclasses.replace(cfg, steps=12)
    write(tmp_path, changed, range(4, 7), shift=0.25, resume_step=3)  # 4 and 5 are other ones now
    assert_same(tracker, tmp_path, changed)
    found = read(tracker, tmp_path)
    assert found.metrics[4]["reward/mean"] == 4 / 3 + 0.25
    for step in (1, 6):  # the first of which was written again, from rollouts/
        rows = found.completions[step]
        assert len(rows) == 20 and len({row[0] for row in rows}) == 10  # of 40, and all problems
        assert rows[0] == ["p0", 0, None, step, 3, "?" + "x" * 1999 + "..."]
        assert rows[1] == ["p0", 2, None, step + 2 / 64, 3, "def f(): ...\r\n\u2028"]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_added_later_gets_the_whole_run(tracker, tmp_path):
    write(tmp_path, Config(name="a run"), range(3))
    cfg = tracked(tracker)
    write(tmp_path, cfg, range(3, 4), resume_step=2)
    assert_same(tracker, tmp_path, cfg)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_the_report_is_sent_at_the_end_and_later(tracker, tmp_path):
    cfg, notes = tracked(tracker), []
    write(tmp_path, cfg, range(2))
    assert read(tracker, tmp_path).files == []
    (tmp_path / "report.html").write_text("<p>a report</p>")
    send_artifact(tmp_path, tmp_path / "report.html", notes.append)
    assert [note.partition(":")[0] for note in notes] == [tracker]
    (name,) = read(tracker, tmp_path).files
    assert name.startswith("report")
    assert_same(tracker, tmp_path, cfg)
    write(tmp_path, cfg, range(1, 3), resume_step=0)
    assert read(tracker, tmp_path).files == [name]
    assert_same(tracker, tmp_path, cfg)


@pytest.mark.own_process  # in which Trackio's folder is that of the run
def test_nothing_is_asked_and_nothing_leaves_the_machine(tmp_path, monkeypatch, capsys):
    write(tmp_path / "another", Config(), range(2))
    assert not {"wandb", "mlflow", "trackio"} & sys.modules.keys()
    called = []

    def connect(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            called.append(address)
            raise OSError("no network")
        return connected(self, address)

    connected = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **_: called.append(asked))
    monkeypatch.setattr("builtins.input", lambda *_: called.append("input"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")  # whose name Trackio would ask for
    monkeypatch.delenv("TRACKIO_DIR")
    cfg, notes = tracked(*TRACKERS), []
    with RunLog(tmp_path, cfg, note=notes.append) as log:
        log.rollouts(1, records(1))
        log.metrics(1, {"reward/mean": 0.5})
    assert called == [] and capsys.readouterr().out == ""
    assert [note.partition(":")[0] for note in notes] == TRACKERS
    assert all(str(tmp_path) in note for note in notes)
    for tracker in TRACKERS:
        assert_same(tracker, tmp_path, cfg)


def test_one_that_fails_is_named_once_and_the_others_get_all(tmp_path):
    cfg, notes = tracked("mlflow", "trackio"), []
    with RunLog(tmp_path, cfg, note=notes.append) as log:
        log.metrics(0, {"reward/mean": 0.5})
        assert len(notes) == 2
        (tmp_path / "mlflow").rename(tmp_path / "gone")
        (tmp_path / "mlflow").write_text("in the way")
        for step in (1, 2):
            log.rollouts(step, records(step))
            log.metrics(step, {"reward/mean": 0.5})
    assert len(notes) == 3
    assert notes[2].startswith("warning: mlflow gets no more of this run: ")
    assert_same("trackio", tmp_path, cfg)
    # What stood in its way is gone: a resume gives it what it lacks.
    (tmp_path / "mlflow").unlink()
    (tmp_path / "gone").rename(tmp_path / "mlflow")
    write(tmp_path, cfg, range(3, 4), resume_step=2)
    assert_same("mlflow", tmp_path, cfg)


def test_a_store_that_cannot_be_reached_does_not_stop_the_run(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notes = []
    with RunLog(tmp_path, tracked("mlflow"), note=notes.append) as log:
        for step in (0, 1):
            log.metrics(step, {"reward/mean": 0.5})
    (note,) = notes
    assert "Connection refused" in note or "Max retries" in note
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_run_in_a_bucket_keeps_the_files_in_the_cache(bucket, tmp_path, monkeypatch):
    from rlif_jax.storage.folder import folder_at

    monkeypatch.setenv("RLIF_CACHE", str(tmp_path))
    cfg = tracked("wandb")
    for steps, resume in ((range(3), None), (range(2, 4), 1)):
        write(folder_at("gs://runs/some/run"), cfg, steps, resume_step=resume)
    found = read("wandb", tmp_path / "trackers/runs/some/run")
    assert {step: row["reward/mean"] for step, row in found.metrics.items()} == {
        step: step / 3 for step in range(4)
    }
    assert "wandb" in json.loads(bucket.files["some/run/trackers.json"])


def test_what_is_not_installed_is_refused_before_devices(flags, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = refused([config("random"), *flags, "--log.to", "tensorboard", "wandb"], capsys)
    assert (
        "log.to has 'wandb', and the package wandb is not installed: pip install "
        "'rlif_jax[wandb]', or leave wandb out of log.to" in said
    )
    twice = refused([config("random"), *flags, "--log.to", "tensorboard", "tensorboard"], capsys)
    assert "log.to names tensorboard twice" in twice


def test_a_run_that_is_going_on_gets_no_file_from_others(tmp_path):
    from rlif_jax.run.folder import locked

    write(tmp_path, tracked("wandb"), range(2))
    with locked(tmp_path), pytest.raises(UserError, match="is in use"):
        send_artifact(tmp_path, tmp_path / "report.html")
