"""Training in two real processes: the numbers of one, and what happens when one of them ends."""

import json
import signal
import time

import jax
import numpy as np
import pytest
from flax import nnx
from support.several import ended, started, wait_for_line
from support.small_runs import config, numbers

from rlif_jax.run.token_record import read_token_record
from rlif_jax.weights.source import open_model

pytestmark = pytest.mark.slow

STEPS = 4


@pytest.fixture(scope="module")
def arguments(flags):
    """Certainty and tests, adapters of none; updates large enough that a wrong one shows."""
    return [
        *(config("hybrid"), *flags, f"--steps={STEPS}", "--mesh.data=2", "--mesh.fsdp=2"),
        *("--eval.every=2", "--checkpoint.every=2", "--optim.learning-rate=0.01"),
    ]


def trained(arguments, folder, count):
    processes = started([*arguments, f"--run-dir={folder}"], count)
    outputs = ended(processes)
    assert [process.returncode for process in processes] == [0] * count, "\n\n".join(outputs)
    return outputs


@pytest.fixture(scope="module")
def one(arguments, tmp_path_factory):
    """The run of one process with four devices."""
    folder = tmp_path_factory.mktemp("one") / "run"
    trained(arguments, folder, 1)
    return folder


@pytest.fixture(scope="module")
def two(arguments, tmp_path_factory):
    """The run of two processes with two devices each, and what they printed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, trained(arguments, folder, 2)


def assert_same(folder, expected):
    """Metrics, rollouts and the newest checkpoint, but for the order in which sums are rounded."""
    ours, theirs = numbers(folder), numbers(expected)
    assert [row["step"] for row in ours] == list(range(STEPS + 1))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)
    for step in range(1, STEPS + 1):
        name = f"rollouts/step_{step:06d}.jsonl"
        for mine, other in zip(rows(folder / name), rows(expected / name), strict=True):
            close = {key: mine.pop(key) for key in ("reward", "advantage")} | mine.pop("terms")
            exact = {key: other.pop(key) for key in ("reward", "advantage")} | other.pop("terms")
            assert close == pytest.approx(exact, rel=1e-3, abs=1e-4)
            assert unstamped(mine) == unstamped(other)
    ours, theirs = (read_token_record(run, 1) for run in (folder, expected))
    for name, mine in vars(ours).items():
        np.testing.assert_allclose(mine, getattr(theirs, name), rtol=2e-3, atol=1e-4, err_msg=name)
    for mine, other in zip(parameters(folder), parameters(expected), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def unstamped(row):
    """A record without the digest of the policy, which a rounded sum changes."""
    return {key: value for key, value in row.items() if key != "policy"}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def parameters(folder):
    _, params = nnx.split(open_model(str(folder / "checkpoints" / str(STEPS))).load("float32"))
    return [np.asarray(x) for x in jax.tree.leaves(params)]


def test_two_processes_train_as_one(one, two):
    assert_same(two[0], one)


def test_two_processes_return_from_a_collapse_together(flags, tmp_path):
    guarded = [
        *(config("prob_disparity"), *flags, "--steps=10", "--mesh.data=2", "--mesh.fsdp=2"),
        *("--reward.terms", "token_entropy", "1.0", "--optim.learning-rate=0.05"),
        *("--optim.warmup-steps=0", "--eval.every=0", "--checkpoint.every=1"),
        *("--checkpoint.keep=1", "--guard.first-steps=2", "--guard.patience=2"),
        *("--guard.action=rollback", "--guard.terms", "random", "1.0"),
    ]
    for count in (1, 2):
        trained(guarded, tmp_path / f"{count}", count)
    alone, both = (numbers(tmp_path / name) for name in ("1", "2"))
    told = [row["step"] for row in alone if "collapse/returned_to" in row]
    assert len(told) == 1 and alone[-1]["collapse/state"] == 2 and "reward/random" in alone[-1]
    for mine, other in zip(both[: told[0]], alone, strict=False):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_the_first_process_speaks_for_both(two):
    first, second = two[1]
    assert f"step {STEPS}/{STEPS}" in first
    assert "step" not in second and "sandboxed" not in second


def test_a_killed_process_ends_the_other_and_one_alone_resumes(arguments, tmp_path, one):
    """What the checkpoint has not seen is drawn and judged again, to the same numbers."""
    folder = tmp_path / "run"
    pair = started([*arguments, f"--run-dir={folder}"], 2)
    wait_for_line(folder, 3, pair)
    pair[1].send_signal(signal.SIGKILL)
    ended(pair, timeout_s=180)
    assert pair[0].returncode not in (0, 2)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["2"]
    trained(arguments, folder, 1)
    assert_same(folder, one)


def test_sigterm_of_one_process_stops_both_after_a_whole_step(arguments, tmp_path, one):
    folder = tmp_path / "run"
    pair = started([*arguments, "--checkpoint.every=0", f"--run-dir={folder}"], 2)
    wait_for_line(folder, 1, pair)
    pair[1].send_signal(signal.SIGTERM)
    begun = time.monotonic()
    outputs = ended(pair)
    assert time.monotonic() - begun < 30
    assert [process.returncode for process in pair] == [130, 130], "\n\n".join(outputs)
    (saved,) = (int(path.name) for path in (folder / "checkpoints").iterdir())
    assert f"stopped after step {saved}; the same command resumes from it" in outputs[0]
    trained(arguments, folder, 2)
    assert_same(folder, one)


def test_a_process_that_hangs_ends_the_run_with_its_stacks(arguments, tmp_path):
    folder = tmp_path / "run"
    pair = started([*arguments, "--failures.hang-s=40", f"--run-dir={folder}"], 2)
    wait_for_line(folder, 1, pair)
    pair[1].send_signal(signal.SIGSTOP)
    try:
        output, _ = pair[0].communicate(timeout=240)
    finally:
        pair[1].kill()
        ended(pair)
    assert pair[0].returncode == 1
    assert "Timeout (0:00:40)!" in output and "train_step" in output


def test_a_run_folder_that_is_not_shared_is_refused(arguments, tmp_path):
    """A path relative to the folder that each process works in."""
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
    pair = started([*arguments, "--run-dir=run"], 2, folders)
    outputs = ended(pair)
    assert [process.returncode for process in pair] == [2, 2], "\n\n".join(outputs)
    assert "run is another folder for process 1 on" in outputs[0]
    assert not list(folders[0].rglob("*.jsonl"))


def test_a_batch_that_cannot_be_shared_out_is_refused(arguments, tmp_path):
    pair = started([*arguments, "--data.prompts-per-step=3", f"--run-dir={tmp_path}"], 2)
    outputs = ended(pair)
    assert [process.returncode for process in pair] == [2, 2]
    assert "data.prompts_per_step=3 cannot be shared out evenly by 2 processes" in outputs[0]
