"""Runs that are stopped by a signal or killed, and resume as if nothing had happened."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from support.small_runs import (
    TIMES,
    config,
    long_run,
    metrics,
    numbers,
    process,
    wait_for_step,
)

from rlif_jax.console.progress import Progress
from rlif_jax.run.clock import PHASES
from rlif_jax.train import main


@pytest.fixture(scope="module")
def uninterrupted(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    main([*long_run(flags), f"--run-dir={folder}"])
    return folder


def assert_same_run(folder: Path, expected: Path) -> None:
    """Nothing is lost and nothing is recorded twice."""
    assert numbers(folder) == numbers(expected)
    for step in range(1, 7):
        name = f"rollouts/step_{step:06d}.jsonl"
        assert (folder / name).read_text() == (expected / name).read_text()


def test_the_times_of_a_step_add_up(uninterrupted):
    before, *steps = metrics(uninterrupted)
    assert not any(name.startswith(TIMES) for name in before)
    for step in steps:
        times = {k: v for k, v in step.items() if k.startswith("time/") and k != "time/step"}
        assert times.keys() == {f"time/{phase}" for phase in PHASES}
        assert sum(times.values()) == pytest.approx(step["time/step"], rel=0.02)
        assert min(times.values()) >= 0
        # An evaluation counts towards its own step, a checkpoint towards the one that follows.
        assert (times["time/save"] > 0) == (step["step"] in (3, 5))
        assert times["time/reward"] > 0 and times["time/record"] > 0
    evaluated = {step["step"]: step["time/evaluate"] for step in steps}
    assert min(evaluated[3], evaluated[6]) > max(evaluated[n] for n in (1, 2, 4, 5))


def test_a_killed_run_resumes_as_if_nothing_had_happened(flags, tmp_path, uninterrupted):
    killed = tmp_path / "run"
    victim = process([*long_run(flags), f"--run-dir={killed}"])
    wait_for_step(killed, 3)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert [row["step"] for row in metrics(killed)] == [0, 1, 2, 3]
    main([*long_run(flags), f"--run-dir={killed}"])
    assert_same_run(killed, uninterrupted)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    flags, tmp_path, uninterrupted, capsys
):
    folder = tmp_path / "run"
    arguments = [*long_run(flags), f"--run-dir={folder}"]
    first = [argument.replace("--steps=6", "--steps=4") for argument in arguments]
    main(first)
    (folder / "checkpoints/4/rest/manifest.ocdbt").unlink()
    main(arguments)
    shown = capsys.readouterr()
    assert "warning: checkpoint 4 in " in shown.err and "resumes after step 2." in shown.err
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["4", "6", "damaged-4"]
    assert_same_run(folder, uninterrupted)


def signal_when(monkeypatch, condition) -> None:
    """Send this process a SIGTERM when a phase is shown for which `condition(text)` holds."""
    shown = Progress.phase

    def phase(self, text, done=None, total=None):
        shown(self, text, done, total)
        if condition(text):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "phase", phase)


def stopped(arguments: list[str], capsys) -> str:
    """What the command prints when a signal ends it."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 130
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_signal_during_an_evaluation(flags, tmp_path, uninterrupted, monkeypatch, capsys):
    """Before training, after a step and after the last: what is not recorded yet is kept."""
    folder = tmp_path / "run"
    arguments = [*long_run(flags), f"--run-dir={folder}"]
    for step in (0, 3, 6):
        with monkeypatch.context() as patch:
            recorded = list(range(step))
            signal_when(
                patch,
                lambda text, recorded=recorded: (
                    text.startswith("evaluating")
                    and [row["step"] for row in metrics(folder)] == recorded
                ),
            )
            text = stopped(arguments, capsys)
        assert f"stopped after step {step}" in text
        assert [row["step"] for row in metrics(folder)] == recorded
        assert (folder / f"checkpoints/{step}").is_dir() == (step > 0)
    main(arguments)
    assert_same_run(folder, uninterrupted)
    resumed = metrics(folder)[-1]  # its step ran in the process before
    assert min(resumed[f"time/{phase}"] for phase in ("sample", "update", "evaluate")) > 0
    # Its checkpoint still has the metrics that were not recorded then.
    main(arguments)  # which ends well: a launcher that has started it again is done
    assert "complete at step 6" in capsys.readouterr().out
    arguments[arguments.index("--steps=6")] = "--steps=7"
    main(arguments)
    assert [row["step"] for row in metrics(folder)] == list(range(8))


def test_a_signal_before_training_stops_at_once(flags, tmp_path, monkeypatch, capsys):
    signal_when(monkeypatch, lambda text: text.startswith("preparing"))
    text = stopped([config("random"), *flags, f"--run-dir={tmp_path / 'run'}"], capsys)
    assert text.endswith("problems ...\n")  # nothing was said or done after it
    assert not (tmp_path / "run").exists()


def test_another_model_in_a_folder_that_recorded_nothing_is_the_one_trained(
    flags, tmp_path, monkeypatch, capsys
):
    """The run before was stopped in its first evaluation, after it had described its model."""
    folder = tmp_path / "run"
    arguments = [config("random"), *flags, f"--run-dir={folder}", "--steps=1"]
    with monkeypatch.context() as patch:
        signal_when(patch, lambda text: text.startswith("evaluating"))
        stopped(arguments, capsys)
    before = json.loads((folder / "config.json").read_text())["model"]["source"]
    (folder / "model" / "tokenizer.json").write_text("of the other model")
    other = tmp_path / "other.gguf"
    shutil.copy(before, other)
    main([*arguments, f"--model.source={other}"])
    record = json.loads((folder / "config.json").read_text())
    assert record["model"]["source"] == record["config"]["model"]["source"] == str(other)
    assert (folder / "model" / "tokenizer.json").read_text() != "of the other model"


@pytest.mark.parametrize(
    ("kl_coef", "more"), [(0.0, []), (0.5, []), (0.5, ["--loss.reference-on-host"])]
)
@pytest.mark.slow
def test_a_resumed_run_loads_the_source_for_the_anchor_only(flags, tmp_path, capsys, kl_coef, more):
    """With a KL term the reference is the starting model, not what the checkpoint holds."""
    arguments = [config("prob_disparity"), *flags, "--eval.every=0", f"--loss.kl-coef={kl_coef}"]
    arguments += ["--optim.learning-rate=0.01", *more]
    main([*arguments, "--steps=3", f"--run-dir={tmp_path / 'whole'}"])
    main([*arguments, "--steps=2", f"--run-dir={tmp_path / 'parts'}"])
    capsys.readouterr()
    main([*arguments, "--steps=3", f"--run-dir={tmp_path / 'parts'}"])
    assert ("loading the parameters" in capsys.readouterr().out) == bool(kl_coef)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert (numbers(tmp_path / "parts")[-1].get("loss/kl", 0) > 0) == bool(kl_coef)


def test_ctrl_c_saves_and_says_how_to_resume(flags, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = [config("prob_disparity"), *flags, "--steps=500", "--eval.every=0"]
    arguments += [f"--run-dir={folder}", "--checkpoint.every=0"]

    def interrupt():
        wait_for_step(folder, 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 130
    done = metrics(folder)[-1]["step"]
    assert f"stopped after step {done}" in capsys.readouterr().out
    assert (folder / f"checkpoints/{done}").is_dir()
    arguments[arguments.index("--steps=500")] = f"--steps={done + 1}"
    main(arguments)
    assert [row["step"] for row in metrics(folder)] == list(range(1, done + 2))
