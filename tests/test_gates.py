"""Gates by hand, what they refuse, and a real step in which one closes some of the groups."""

import json
from collections import Counter

import jax
import numpy as np
import pytest
from support.packed import packed
from support.small_runs import config, metrics

from rlif_jax import replay
from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Execution, Gates, Loss, Reward, Sampling
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.gates import gate_metrics, kept_rows, open_groups
from rlif_jax.grpo import train_batches
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.rewards import executing_rewards, known_rewards, runs_all_tests
from rlif_jax.train import main

WRONG, CRASH = Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR
SPECIAL = {
    "-": Outcome(CRASH, (CRASH,), 1, 0.1, answers=(None,)),
    "n": Outcome(Verdict.NO_CODE, (), 1, 0.0),
    "c": Outcome(Verdict.COMPILE_ERROR, (Verdict.COMPILE_ERROR,), 1, 0.1, answers=(None,)),
}
GROUPS = ["AAAA", "AAAB", "AABB", "ABCD", "A---", "AAnc", "nncc"]
"""Votes by letter; - has crashed, n is no program and c one that does not compile."""


def outcomes_of(groups):
    answered = lambda one: Outcome(WRONG, (WRONG,), 1, 0.1, answers=(one,))
    return [SPECIAL.get(one) or answered(one) for group in groups for one in group]


@pytest.mark.parametrize(
    ("gates", "wanted"),
    [
        (Gates(), GROUPS),
        (Gates(low_entropy_iqr=1.5, deterministic=True), GROUPS),  # gates of rows
        (Gates(min_compiling=0.5), GROUPS[:6]),
        (Gates(min_compiling=0.75), GROUPS[:5]),
        (Gates(min_behaviours=1), GROUPS),
        (Gates(min_behaviours=2), ["AAAB", "AABB", "ABCD"]),
        (Gates(min_behaviours=3), ["ABCD"]),
        # Entropies: 0, 0.562, ln 2 = 0.693, ln 4 = 1.386, 0, 0, 0.
        (Gates(vote_entropy=(0.1, 0.6)), ["AAAB"]),
        (Gates(vote_entropy=(0.6, 1.4)), ["AABB", "ABCD"]),
        (Gates(vote_entropy=(0.0, 0.6)), ["AAAA", "AAAB", "A---", "AAnc", "nncc"]),
        (Gates(vote_entropy=(0.0, 0.6), min_compiling=0.75), ["AAAA", "AAAB", "A---"]),
    ],
    ids=str,
)
def test_which_groups_are_open(gates, wanted):
    outcomes = outcomes_of(GROUPS)
    open_N = open_groups(gates, outcomes, None, len(GROUPS))
    assert [group for group, is_open in zip(GROUPS, open_N, strict=True) if is_open] == wanted
    assert open_N.dtype == bool
    if gates.of_groups:
        assert gate_metrics(gates, open_N, np.ones(1))["gates/open_groups"] == pytest.approx(
            len(wanted) / len(GROUPS)
        )


def test_votes_are_counted_on_inputs_of_their_own_and_programs_on_the_tests():
    tests, votes = outcomes_of(["AAnn", "AABB"]), outcomes_of(["AABB", "AAAA"])
    two = Gates(min_behaviours=2)
    assert open_groups(two, tests, votes, 2).tolist() == [True, False]
    assert open_groups(Gates(min_compiling=0.75), tests, votes, 2).tolist() == [False, True]


def test_gates_of_programs_that_were_not_run_are_refused():
    assert open_groups(Gates(low_entropy_iqr=1.0), None, None, 3).tolist() == [True] * 3
    with pytest.raises(UserError, match="were not run"):
        open_groups(Gates(min_compiling=0.5), None, None, 3)
    early = Outcome(WRONG, (WRONG,), 2, 0.1, answers=("A",))
    with pytest.raises(UserError, match="stopped at the first failing one"):
        open_groups(Gates(min_behaviours=2), [early] * 2, None, 1)


ROW_ENTROPY = [1.0, 2.0, 3.0, 4.0, 0.1]
"""Quartiles 1 and 3."""


def entropies():
    """Rows of one, two or three tokens with these means; NaN behind their ends."""
    length_B = np.array([1, 2, 3, 2, 1])
    mask_BC = np.arange(3) < length_B[:, None]
    entropy_BC = np.where(mask_BC, np.array(ROW_ENTROPY)[:, None], np.nan).astype(np.float32)
    entropy_BC[2, :2] += [1.0, -1.0]
    return TokenStats(*(entropy_BC,) * 5), mask_BC


@pytest.mark.parametrize(
    ("k", "kept"),
    [
        (None, [1, 1, 1, 1, 1]),
        (0.0, [1, 1, 1, 1, 0]),  # the first row is at the quartile itself
        (0.44, [1, 1, 1, 1, 0]),  # 1 - 0.44 * 2 = 0.12
        (0.46, [1, 1, 1, 1, 1]),
    ],
)
def test_rows_of_outstandingly_little_entropy(k, kept):
    gates, (stats, mask_BC) = Gates(low_entropy_iqr=k), entropies()
    got = kept_rows(gates, stats, mask_BC)
    np.testing.assert_array_equal(got, kept)
    shown = {} if k is None else {"gates/kept_rows": np.mean(kept)}
    assert gate_metrics(gates, np.ones(2, bool), got) == pytest.approx(shown)


def test_the_loss_sees_only_the_rows_that_are_kept():
    """Of two mini-batches of two rows each; one row of the second is truncated."""
    mask_BC = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], bool)
    zeros = np.zeros((4, 2), np.float32)
    rollout = Rollout(
        prompts=Prompts(np.full((2, 1), 3, np.int32), np.ones((2, 1), bool)),
        tokens=np.full((4, 2), 5, np.int32),
        mask=mask_BC,
        stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
        truncated=np.array([False, False, True, False]),
        length=mask_BC.sum(axis=1).astype(np.int32),
    )
    packings = packed(rollout, mini_batches=2)
    facts = (np.ones(4, np.float32), [None, None], None, Loss(overlong_filter=True), 0.0)
    kept_B = np.array([False, True, True, True])
    first, second = train_batches(packings, rollout, *facts, jax.random.key(0), kept_B)
    assert (first.completions, first.trained_tokens) == (1, 1)
    assert (second.completions, second.trained_tokens) == (1, 1)
    trained_BC = packings[0].collect(np.asarray(first.trained), 2)
    np.testing.assert_array_equal(trained_BC, [[0, 0], [1, 0]])
    whole, _ = train_batches(packings, rollout, *facts, jax.random.key(0))
    assert (whole.completions, whole.trained_tokens) == (2, 3)


# Rules

CERTAINTY, TESTS = (("token_entropy", 1.0),), (("tests_passed", 1.0),)


def problems(**changes):
    try:
        validate(Config(**changes), known_rewards(), executing_rewards())
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        (Gates(min_behaviours=9), "min_behaviours=9 is more than a group of sampling.samples_per_"),
        (Gates(vote_entropy=(1.0, 0.5)), "vote_entropy=(1.0, 0.5) is empty; give the lower"),
        (Gates(vote_entropy=(2.1, 3.0)), "vote_entropy=(2.1, 3.0) begins above ln 8 = 2.079"),
        (Gates(vote_entropy=(-1.0, 3.0)), "holds -1.0, which must be at least 0"),
        (Gates(min_compiling=1.5), "gates.min_compiling=1.5 must be in [0, 1]"),
        (Gates(low_entropy_iqr=-1.0), "gates.low_entropy_iqr=-1.0 must be at least 0"),
    ],
    ids=str,
)
def test_gates_that_no_group_can_pass_are_refused(gates, said):
    assert said in problems(gates=gates)


@pytest.mark.parametrize(
    ("gates", "named"),
    [
        (Gates(min_compiling=0.5), "gates.min_compiling=0.5 needs programs"),
        (Gates(min_behaviours=2), "gates.min_behaviours=2 needs programs"),
        (
            Gates(vote_entropy=(0.0, 1.0), deterministic=True),
            "gates.vote_entropy=(0.0, 1.0) and gates.deterministic=True needs programs",
        ),
        (Gates(low_entropy_iqr=1.5), ""),
        (Gates(), ""),
    ],
    ids=str,
)
def test_gates_of_programs_need_programs_to_run(gates, named):
    unwatched = Execution(monitor=False)
    said = problems(gates=gates, execution=unwatched, reward=Reward(terms=CERTAINTY))
    assert named in said and bool(named) == bool(said)
    assert not problems(gates=gates, execution=unwatched, reward=Reward(terms=TESTS))
    assert not problems(gates=gates, reward=Reward(terms=CERTAINTY))


def test_gates_of_votes_run_all_tests():
    for gates in (
        Gates(min_behaviours=2),
        Gates(vote_entropy=(0.0, 1.0)),
        Gates(deterministic=True),
    ):
        assert runs_all_tests(Config(gates=gates))
    assert not runs_all_tests(Config(gates=Gates(min_compiling=0.5, low_entropy_iqr=1.5)))


@pytest.mark.parametrize(
    ("reward", "data", "said"),
    [
        (
            Reward(similarity="syntax"),
            Data(),
            "reward.similarity=syntax is read by the reward evol alone; name it in reward.terms",
        ),
        (
            Reward(confidence="stated"),
            Data(ask_confidence=True),
            "reward.confidence=stated is read by the reward brier alone",
        ),
        (
            Reward(confidence="stated", terms=(("brier", 1.0),)),
            Data(),
            "reward.confidence=stated needs prompts that ask for it; set data.ask_confidence",
        ),
        (
            Reward(),
            Data(ask_confidence=True, prompt_style="livecodebench"),
            "data.ask_confidence=True would change the published text of "
            "data.prompt_style=livecodebench",
        ),
    ],
    ids=str,
)
def test_settings_of_rewards_that_nothing_reads_are_refused(reward, data, said):
    assert said in problems(reward=reward, data=data)


def test_what_reads_them_is_allowed():
    terms = (("evol", 1.0), ("brier", 0.5))
    reward = Reward(terms=terms, similarity="syntax", confidence="stated")
    assert not problems(reward=reward, data=Data(ask_confidence=True))
    group = Sampling(samples_per_prompt=2)
    assert not problems(gates=Gates(min_behaviours=2, vote_entropy=(0.69, 0.7)), sampling=group)


# Real runs


PROGRAM = "def f(x):\n    return -1"  # right for no problem


@pytest.fixture
def trained(flags, tmp_path, monkeypatch):
    """A step of majority votes: its metrics, and its rows in groups of four.

    A random model writes no program, so that the judge is given some: one for the first problem
    that it sees and two for every other.
    """
    submit = Judge.submit

    def give_programs():
        given = Counter()

        def submit_some(self, problem, code):
            given[problem.id] += 1
            most = 1 if problem.id == next(iter(given)) else 2
            return submit(self, problem, PROGRAM if given[problem.id] <= most else None)

        monkeypatch.setattr(Judge, "submit", submit_some)

    def run(name, *more):
        folder = tmp_path / name
        arguments = [config("majority_vote"), *flags, "--steps=1", "--eval.every=0", *more]
        give_programs()
        main([*arguments, f"--run-dir={folder}"])
        give_programs()  # to a replay
        rows = [json.loads(row) for row in (folder / "rollouts/step_000001.jsonl").open()]
        return metrics(folder)[0], [rows[i : i + 4] for i in range(0, len(rows), 4)]

    return run


def is_closed(group) -> bool:
    return sum(row["verdict"] == "wrong_answer" for row in group) < 2


def test_a_closed_group_teaches_nothing_and_is_replaced(trained, tmp_path):
    """Every group differs in its rewards, and of one less than half of the rows compile."""
    plain, groups = trained("plain", "--data.max-refills=3")
    assert plain["rollout/refills"] == 0 and "gates/open_groups" not in plain
    assert all({row["reward"] for row in group} == {0, 1} for group in groups)
    assert sum(map(is_closed, groups)) == 1

    gate = "--gates.min-compiling=0.5"
    alone, same = trained("alone", gate)
    assert alone["gates/open_groups"] == 0.75 and "gates/kept_rows" not in alone
    for group, before in zip(same, groups, strict=True):
        for name in ("completion", "reward"):
            assert [row[name] for row in group] == [row[name] for row in before]
        wanted = [0.0 if is_closed(before) else row["advantage"] for row in before]
        assert [row["advantage"] for row in group] == wanted
    assert alone["grad/norm"] != plain["grad/norm"]

    refilled, more = trained("refilled", gate, "--data.max-refills=3")
    assert refilled["rollout/refills"] == 1 and refilled["gates/open_groups"] == 7 / 8
    assert [*map(is_closed, more)] == [*map(is_closed, same), False, False, False, False]
    for group in more:
        advantages = {row["advantage"] for row in group}
        assert advantages == {0.0} if is_closed(group) else 0.0 not in advantages
    with pytest.raises(SystemExit) as stop:
        replay.main([str(tmp_path / "refilled"), "--step=1"])
    assert stop.value.code == 0


def test_rows_of_little_entropy_are_left_out_of_a_real_step(trained):
    plain, groups = trained("plain")
    step, same = trained("filtered", "--gates.low-entropy-iqr=0.0")
    assert step["gates/kept_rows"] == 0.75  # all but the lowest quarter
    assert "gates/open_groups" not in step
    assert step["grad/norm"] != plain["grad/norm"]
    for group, before in zip(same, groups, strict=True):
        assert [row["advantage"] for row in group] == [row["advantage"] for row in before]
