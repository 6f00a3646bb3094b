"""A whole run of the very small model with every tracker on, ended between two checkpoints."""

import importlib.util
import json

import pytest
from support.small_runs import config, metrics
from support.tracker_files import read

from rlif_jax.run import log as run_log
from rlif_jax.run.trackers.tracked import COLUMNS, plain_key
from rlif_jax.train import main

TRACKERS = ["wandb", "mlflow", "trackio"]
NAMES = ["problem", "sample", "verdict", "reward", "length", "completion"]


class Ended(BaseException):
    """What no handler of the run expects."""


@pytest.mark.slow
@pytest.mark.own_process  # in which Trackio's folder is that of the run
def test_every_tracker_has_what_metrics_has(flags, tmp_path, monkeypatch, capsys):
    for name in TRACKERS:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("NETRC", "/nowhere")
    folder = tmp_path / "run"
    arguments = [config("tests_passed"), *flags, "--steps=4", "--eval.every=2"]
    arguments += ["--checkpoint.every=2", f"--run-dir={folder}", "--log.to", "tensorboard"]

    recorded = run_log.RunLog.metrics

    def then_ended(self, step, values):
        recorded(self, step, values)
        if step == 3:
            raise Ended

    with monkeypatch.context() as patch, pytest.raises(Ended):
        patch.setattr(run_log.RunLog, "metrics", then_ended)
        main([*arguments, *TRACKERS])
    (folder / "report.html").write_text("<p>a report</p>")
    main([*arguments, *TRACKERS])
    assert "warning" not in capsys.readouterr().out

    expected = {row.pop("step"): row for row in metrics(folder)}
    assert list(expected) == [0, 1, 2, 3, 4] and "eval/adding/avg@2" in expected[2]
    made_by = json.loads((folder / "config.json").read_text())["config"]
    assert list(COLUMNS) == NAMES
    for name in TRACKERS:
        found = read(name, folder)
        plain = plain_key if name == "mlflow" else str
        for step, row in expected.items():
            assert found.metrics[step] == {plain(key): value for key, value in row.items()}
        assert found.metrics.keys() == expected.keys()
        assert found.config == made_by
        assert [file.startswith("report") for file in found.files] == [True]
        for step in (1, 2, 3, 4):
            lines = (folder / f"rollouts/step_{step:06d}.jsonl").read_text("utf-8").split("\n")
            rows = [json.loads(line) for line in lines[:-1]]
            assert found.completions[step] == [[row[key] for key in NAMES] for row in rows]
    assert list((folder / "tensorboard").iterdir())
