"""What a run does about failures: numbers that are not finite, signals, a folder in use."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from support.small_runs import config, metrics, numbers, refused

from rlif_jax import submissions
from rlif_jax.console.progress import Progress
from rlif_jax.data.extract import Found
from rlif_jax.errors import UserError
from rlif_jax.rewards import registry
from rlif_jax.run.failures import memory_advice
from rlif_jax.train import main


def arguments(flags, folder, *more):
    return [config("prob_disparity"), *flags, "--eval.every=0", f"--run-dir={folder}", *more]


def problems_of(folder, step):
    lines = (folder / f"rollouts/step_{step:06d}.jsonl").read_text().splitlines()
    return [json.loads(line)["problem"] for line in lines]


@pytest.fixture
def broken(monkeypatch):
    """A reward that gives NaN for one row in the calls that the test names."""
    calls, bad = [], set()

    def broken_reward(ev):
        calls.append(1)
        value_B = np.asarray(ev.stats.top1).mean(axis=1)
        value_B[2] = np.nan if len(calls) in bad else value_B[2]
        return value_B

    broken_reward.needs, broken_reward.all_tests, broken_reward.teacher = "stats", False, False
    monkeypatch.setitem(registry._BY_NAME, "broken_reward", broken_reward)
    return bad


def test_a_batch_that_is_not_finite_is_left_out_and_kept(flags, tmp_path, broken, capsys):
    """The step takes the next problems instead; nothing that is recorded is not finite."""
    broken.add(2)
    whole, skipping = tmp_path / "whole", tmp_path / "skipping"
    more = ["--reward.terms", "broken_reward", "1.0", "--steps=3"]
    main(arguments(flags, skipping, *more))
    said = capsys.readouterr().out
    assert "step 2 leaves out a batch: Reward term 'broken_reward' is nan in row 2" in said
    kept = np.load(skipping / "failures/step_000002_1.npz")
    assert kept["tokens"].shape == kept["mask"].shape == kept["logprob"].shape == (16, 12)
    broken.clear()
    main(arguments(flags, whole, *more, "--steps=4"))
    assert [row["step"] for row in metrics(skipping)] == [1, 2, 3]
    assert numbers(skipping)[0] == numbers(whole)[0]
    assert problems_of(skipping, 2) == problems_of(whole, 3)
    assert problems_of(skipping, 3) == problems_of(whole, 4)


def test_a_diverged_run_returns_to_its_checkpoint_with_other_numbers(
    flags, tmp_path, broken, capsys
):
    """Of three lives the second goes on from step 2, redraws step 3 and ends well."""
    broken.update({3, 4})
    folder, plain = tmp_path / "run", tmp_path / "plain"
    more = ["--reward.terms", "broken_reward", "1.0", "--steps=4", "--checkpoint.every=2"]
    main(arguments(flags, folder, *more, "--failures.skipped-batches=1"))
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4]
    assert capsys.readouterr().out.count("resuming after step 2") == 1
    broken.clear()
    main(arguments(flags, plain, *more))
    assert numbers(folder)[:2] == numbers(plain)[:2]
    assert problems_of(folder, 3) == problems_of(plain, 3)
    assert numbers(folder)[2] != numbers(plain)[2]


def test_a_run_that_diverges_again_ends_with_a_report(flags, tmp_path, capsys):
    """A learning rate that makes every activation overflow within two updates."""
    folder = tmp_path / "run"
    more = ["--optim.learning-rate=1e38", "--optim.warmup-steps=0", "--checkpoint.every=1"]
    text = refused(arguments(flags, folder, *more, "--failures.skipped-batches=1"), capsys)
    assert "the run has diverged, after 1 return to its newest checkpoint: step 3 has left" in text
    assert "--optim.learning-rate" in text and str(folder / "failures") in text
    assert [row["step"] for row in metrics(folder)] == [1, 2]
    names = sorted(path.name for path in (folder / "failures").iterdir())
    assert names == ["step_000003_1.npz", "step_000003_2.npz"]


def test_a_device_without_memory_is_told_what_to_change():
    said = "RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore"
    with pytest.raises(UserError, match=r"--sampling\.slots.*rlif_jax\.plan"), memory_advice():
        raise jax.errors.JaxRuntimeError(said)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_advice():
        raise jax.errors.JaxRuntimeError("INTERNAL: else")


HOLD = """
import pathlib, sys
from rlif_jax.run.folder import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_runs_in_one_folder_are_refused_until_the_first_is_gone(flags, tmp_path, capsys):
    """Also when it is killed: the operating system takes the lock back."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        text = refused(arguments(flags, folder, "--steps=1"), capsys)
        assert f"{folder} is in use: process {other.pid} on" in text
        assert not (folder / "metrics.jsonl").exists()
        # What the other run is about to save is its own, and it is asked before a model is read.
        unfinished = folder / "checkpoints" / "20.orbax-checkpoint-tmp"
        unfinished.mkdir(parents=True)
        lost = [*arguments(flags, folder, "--steps=1"), "--model.source=nowhere"]
        assert "is in use" in refused(lost, capsys)
        assert unfinished.is_dir()
        other.kill()
    main(arguments(flags, folder, "--steps=1"))
    assert len(metrics(folder)) == 1


SLOW_PROGRAM = Found("import time\ndef f(x):\n    time.sleep(0.5)\n    return x", 0, 0)


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submissions, "find_code", lambda *given: SLOW_PROGRAM)
        main(signalled(flags, folder))
    return folder


def signalled(flags, folder):
    """Three steps with every phase: tests that take a while, evaluations, checkpoints."""
    more = ("--steps=3", "--eval.every=2", "--checkpoint.every=2", "--execution.workers=8")
    return [config("hybrid"), *flags, f"--run-dir={folder}", *more]


@pytest.mark.parametrize(
    "phase",
    ["sampling", "scoring", "waiting for tests", "updating", "evaluating", "saving"],
)
@pytest.mark.slow
def test_sigterm_in_any_phase_leaves_a_checkpoint(
    phase, flags, tmp_path, monkeypatch, undisturbed, capsys
):
    """It comes in step 2; the run saves what is whole and resumes to the same numbers."""
    monkeypatch.setattr(submissions, "find_code", lambda *given: SLOW_PROGRAM)
    folder, shown = tmp_path / "run", Progress.phase

    def signal_once(self, text, done=None, total=None):
        shown(self, text, done, total)
        path = folder / "metrics.jsonl"
        steps = path.read_text().count("\n") if path.exists() else 0
        begun = 3 if phase == "saving" else 2  # lines: of step 0, of step 1
        if text.startswith(phase) and steps == begun and not sent:
            sent.append(text)
            os.kill(os.getpid(), signal.SIGTERM)

    sent = []
    monkeypatch.setattr(Progress, "phase", signal_once)
    with pytest.raises(SystemExit) as stop:
        main(signalled(flags, folder))
    assert stop.value.code == 130 and sent
    done = 1 if phase in ("sampling", "scoring", "waiting for tests") else 2
    assert f"stopped after step {done}; the same command resumes" in capsys.readouterr().out
    assert (folder / "checkpoints" / str(done)).is_dir()
    main(signalled(flags, folder))
    assert numbers(folder) == numbers(undisturbed)
