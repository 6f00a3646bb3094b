"""A policy that collapses in a real run, and what the guard does about it."""

import pytest
from support.replays import lines, rows
from support.small_runs import config, metrics, numbers

from rlif_jax.config import Checkpoint, Config, Guard
from rlif_jax.config.load import load
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.replay import replay
from rlif_jax.rewards import known_rewards
from rlif_jax.run.standing import standing
from rlif_jax.train import train

CERTAIN = ["--reward.terms", "token_entropy", "1.0"]
STEPS = 12


def arguments(flags, folder, *more: str) -> list[str]:
    """A very small model that becomes certain within a few steps."""
    return [
        config("prob_disparity"),
        *flags,
        *CERTAIN,
        *("--optim.learning-rate=0.05", "--optim.warmup-steps=0", f"--steps={STEPS}"),
        *("--eval.every=0", "--checkpoint.every=1", "--checkpoint.keep=1"),
        *("--guard.first-steps=2", "--guard.patience=2"),
        *(f"--run-dir={folder}", *more),
    ]


ROLLBACK = ["--guard.action=rollback", "--guard.terms", "random", "1.0"]


@pytest.fixture(scope="module")
def returned(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "returned"
    train(load(arguments(flags, folder, *ROLLBACK)))
    return folder


@pytest.fixture(scope="module")
def at(returned) -> int:
    """The step with which the collapse was told."""
    return next(m["step"] for m in metrics(returned) if m["collapse/state"] == 2)


def test_a_run_returns_to_the_checkpoint_before_the_signs(returned, at):
    by_step = {m["step"]: m for m in metrics(returned)}
    healthy = int(by_step[at]["collapse/returned_to"])
    assert [by_step[n]["collapse/state"] for n in (at - 2, at - 1, at)] == [0, 1, 2]
    assert healthy == at - 2  # the signs began with at - 1, and keep=1 alone would have lost it
    provenance = {line["step"]: line for line in lines(returned)}
    assert provenance[at]["parameters"] == provenance[healthy]["parameters"]
    # What drew the next step is what was returned to, and entropy is back.
    entropy = {n: m["stats/token_entropy"] for n, m in by_step.items()}
    assert entropy[at + 1] > 2 * entropy[at]


def test_the_reward_changes_with_the_return(returned, at):
    for record in metrics(returned):
        after = record["step"] > at
        assert ("reward/random" in record) == after != ("reward/token_entropy" in record)
    assert [m["collapse/state"] for m in metrics(returned) if m["step"] > at] == [2] * (STEPS - at)


@pytest.mark.parametrize("steps_after", [0, 1])
def test_a_resumed_run_goes_on_as_if_it_had_not_been_stopped(
    flags, returned, at, tmp_path, steps_after
):
    both = arguments(flags, tmp_path / "run", *ROLLBACK)
    train(load([*both, f"--steps={at + steps_after}"]))
    train(load(both))
    assert numbers(tmp_path / "run") == numbers(returned)


def test_a_replay_returns_as_well(flags, tmp_path, at):
    folder = tmp_path / "run"
    train(load(arguments(flags, folder, *ROLLBACK, "--checkpoint.keep=20")))
    assert replay(folder, at - 1, at + 2) is None


def test_a_run_is_stopped(flags, at, tmp_path, capsys):
    cfg = load(arguments(flags, tmp_path / "run", "--guard.action=stop", "--eval.every=100"))
    train(cfg)
    record = metrics(tmp_path / "run")[-1]
    assert (record["step"], record["collapse/state"]) == (at, 2)
    assert any(name.startswith("eval/") for name in record)  # the last step is evaluated
    assert standing(cfg).finished and standing(cfg).steps_left == 0
    assert f"the run ends here; checkpoint {at - 2}" in capsys.readouterr().out.lower()
    with pytest.raises(UserError, match=rf"ended at step {at}.*--init-from"):
        train(cfg)


def test_a_warning_changes_nothing(flags, at, tmp_path, capsys):
    folder = tmp_path / "run"
    train(load(arguments(flags, folder)))
    assert f"--init-from {folder}@{at - 2}" in " ".join(capsys.readouterr().out.split())
    train(load(arguments(flags, tmp_path / "quiet", "--guard.action=record")))
    assert "collapses" not in capsys.readouterr().out
    assert numbers(folder) == numbers(tmp_path / "quiet")
    assert len(metrics(folder)) == STEPS
    kept = [int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    assert sorted(kept) == [at - 2, STEPS]


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (Guard(action="switch"), "guard.action=switch needs guard.terms"),
        (Guard(terms=(("random", 1.0),)), "are read only with guard.action=switch or rollback"),
        (Guard("switch", (("nothing", 1.0),)), "guard.terms names 'nothing'; known rewards are"),
        (Guard("switch", (("random", 1.0), ("random", 2.0))), "guard.terms names a reward twice"),
    ],
)
def test_what_a_guard_cannot_do_is_refused(guard, said):
    with pytest.raises(UserError) as refused:
        validate(Config(guard=guard), known_rewards())
    assert said in str(refused.value)


def test_a_return_needs_checkpoints():
    guard = Guard("rollback", (("random", 1.0),))
    validate(Config(guard=guard), known_rewards())
    with pytest.raises(UserError, match=r"checkpoint.every=0"):
        validate(Config(guard=guard, checkpoint=Checkpoint(every=0)), known_rewards())


def test_programs_run_when_a_later_reward_asks(flags, tmp_path):
    """Tests decide after the collapse, so they run from the start where nothing else wants them."""
    terms = ["--guard.action=switch", "--guard.terms", "tests_fraction", "1.0"]
    folder = tmp_path / "run"
    train(load(arguments(flags, folder, *terms, "--execution.no-monitor")))
    assert "reward/tests_fraction" in metrics(folder)[-1]
    assert rows(folder, 1)[0]["verdict"] is not None
