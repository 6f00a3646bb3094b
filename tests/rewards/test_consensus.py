"""Majority vote by hand, and what it does not look at."""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.batch import Evidence, TokenStats
from rlif_jax.config import Reward
from rlif_jax.errors import UserError
from rlif_jax.execution.compare import answer_key
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.rewards.consensus import (
    behaviour_entropy,
    majority_vote,
    soft_vote,
    teacher_vote,
    vote_fraction,
)
from rlif_jax.rewards.registry import find_reward

WRONG, CRASH = Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR
NO_CODE = Outcome(Verdict.NO_CODE, (), 2, 0.0)
NO_COMPILE = Outcome(Verdict.COMPILE_ERROR, (Verdict.COMPILE_ERROR,), 2, 0.1, answers=(None,))


def answered(*answers: str | None) -> Outcome:
    """A program that gave these answers, all wrong; None where it crashed."""
    results = tuple(CRASH if a is None else WRONG for a in answers)
    return Outcome(results[0], results, len(answers), 0.1, answers=answers)


def evidence(outcomes, group_size):
    rows = len(outcomes)
    zeros = jnp.zeros((rows, 1), jnp.float32)
    return Evidence(
        stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
        mask=jnp.ones((rows, 1), bool),
        truncated=jnp.zeros(rows, bool),
        key=jax.random.key(0),
        group_size=group_size,
        outcomes=tuple(outcomes),
    )


@pytest.mark.parametrize(
    ("group", "majority", "fraction"),
    [
        ("AAB", [1, 1, 0], [2, 2, 1]),
        ("ABB", [0, 1, 1], [1, 2, 2]),
        ("AAA", [1, 1, 1], [3, 3, 3]),
        ("AABBC", [1, 1, 1, 1, 0], [2, 2, 2, 2, 1]),  # every tied class
        ("ABC", [1, 1, 1], [1, 1, 1]),  # ties of single programs, too
        ("A--", [1, 0, 0], [1, 0, 0]),
        ("---A", [0, 0, 0, 1], [0, 0, 0, 1]),  # crashes are no class, however many
        ("---", [0, 0, 0], [0, 0, 0]),
        ("A", [1], [1]),
    ],
)
def test_one_group_by_hand(group, majority, fraction):
    outcomes = [NO_CODE if vote == "-" else answered(vote, "same") for vote in group]
    ev = evidence(outcomes, len(group))
    got = majority_vote(ev)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, majority)
    np.testing.assert_allclose(vote_fraction(ev), np.array(fraction) / len(group), rtol=1e-6)


@pytest.mark.parametrize(
    ("group", "entropy"),
    [
        ("AAAA", 0.0),
        ("AAAB", -0.75 * np.log(0.75) - 0.25 * np.log(0.25)),
        ("AABC", 1.5 * np.log(2)),
        ("ABCD", np.log(4)),
        ("AAB-", -2 / 3 * np.log(2 / 3) - 1 / 3 * np.log(1 / 3)),  # of those that vote
        ("A---", 0.0),
    ],
)
def test_a_group_is_believed_below_an_entropy(group, entropy):
    outcomes = [NO_CODE if vote == "-" else answered(vote, "same") for vote in group]
    ev = evidence(outcomes, 4)
    share = np.asarray(vote_fraction(ev))
    np.testing.assert_array_equal(behaviour_entropy(ev), share)  # no gate
    for most, believed in ((entropy + 1e-6, True), (max(entropy - 1e-6, 1e-9), entropy == 0)):
        gated = replace(ev, settings=Reward(vote_entropy_max=most))
        np.testing.assert_array_equal(behaviour_entropy(gated), share * believed)


def test_soft_votes_by_hand():
    """Four programs on two inputs: 1, 2 | 1, 3 | 1, crash | none."""
    outcomes = [answered("1", "2"), answered("1", "3"), answered("1", None), NO_CODE]
    got = soft_vote(evidence(outcomes, 4))
    np.testing.assert_allclose(got, np.array([2, 2, 2, 0]) / (2 * 3), rtol=1e-6)
    pair = soft_vote(evidence([answered("1", "2"), answered("1", "2"), *outcomes[2:]], 2))
    np.testing.assert_array_equal(pair, [1, 1, 0, 0])
    assert soft_vote(evidence([answered("1")], 1)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("group", "teacher", "alone", "joint"),
    [
        ("AAB", "BBA", [0, 0, 1], [1, 1, 1]),  # 3 of each in the joint pool
        ("AAB", "BBB", [0, 0, 1], [0, 0, 1]),
        ("AAB", "ABC", [1, 1, 1], [1, 1, 0]),  # every tied class
        ("AAB", "CCC", [0, 0, 0], [0, 0, 0]),  # the policy has no such program
        ("AAB", "CC-", [0, 0, 0], [1, 1, 0]),  # 2 of A and of C
        ("AAB", "---", [0, 0, 0], [1, 1, 0]),  # no votes of the teacher
        ("A--", "A--", [1, 0, 0], [1, 0, 0]),
        ("---", "AAA", [0, 0, 0], [0, 0, 0]),
        ("---", "---", [0, 0, 0], [0, 0, 0]),
    ],
)
def test_a_teacher_votes_by_hand(group, teacher, alone, joint):
    """Two groups; in the second the teacher has another program than all three rows."""

    def outcomes(votes):
        return tuple(NO_CODE if vote == "-" else answered(vote, "same") for vote in votes)

    ev = replace(evidence(outcomes(group + "AAA"), 3), teacher=outcomes(teacher + "DDD"))
    got = teacher_vote(ev)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, [*alone, 0, 0, 0])
    pooled = replace(ev, settings=Reward(teacher_pool="joint"))
    np.testing.assert_array_equal(teacher_vote(pooled), [*joint, 1, 1, 1])


@pytest.mark.parametrize(
    ("teacher", "said"),
    [(None, "teacher=None for 2 rows"), ((NO_CODE,), "1 outcomes of a teacher for 2 rows")],
)
def test_a_teacher_that_did_not_sample_is_missed(teacher, said):
    ev = replace(evidence([answered("A"), answered("B")], 2), teacher=teacher)
    with pytest.raises(UserError, match=rf"{said}.*teacher=True"):
        teacher_vote(ev)


@pytest.mark.parametrize(
    "name", ["majority_vote", "vote_fraction", "soft_vote", "behaviour_entropy", "teacher_vote"]
)
def test_votes_may_have_inputs_of_their_own(name):
    """Then the outcomes of the tests are not looked at."""
    fn = find_reward(name)
    votes = (answered("1", "2"), answered("1", "2"), answered("1", "3"))
    tests = replace(evidence([answered(None)] * 3, 3), teacher=votes)
    assert fn(replace(tests, votes=votes)).tolist() != fn(tests).tolist()
    np.testing.assert_array_equal(
        fn(replace(tests, votes=votes)), fn(replace(tests, outcomes=votes))
    )


def test_groups_do_not_vote_for_one_another():
    outcomes = [answered(v) for v in ("A", "A", "B", "B", "A", "B", "C", "C", "C")]
    ev = evidence(outcomes, 3)
    np.testing.assert_array_equal(majority_vote(ev), [1, 1, 0, 1, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(vote_fraction(ev), np.array([2, 2, 1, 2, 1, 2, 3, 3, 3]) / 3)


def test_programs_are_equal_when_they_agree_on_every_input():
    outcomes = [answered("A", "B"), answered("B", "A"), answered("A", "C"), answered("A", "B")]
    ev = evidence(outcomes, 4)
    np.testing.assert_array_equal(majority_vote(ev), [1, 0, 0, 1])
    np.testing.assert_array_equal(vote_fraction(ev), [0.5, 0.25, 0.25, 0.5])


def test_who_did_not_answer_every_input_has_no_vote():
    outcomes = [answered("A", None), answered("A", None), NO_COMPILE, NO_CODE, answered("A", "B")]
    ev = evidence(outcomes, 5)
    np.testing.assert_array_equal(majority_vote(ev), [0, 0, 0, 0, 1])
    np.testing.assert_allclose(vote_fraction(ev), [0, 0, 0, 0, 0.2])


def test_outputs_that_the_judge_holds_equal_are_one_class():
    printed = ["3 4\n", "3.0  4", "3\n4", "x"]
    ev = evidence([answered(answer_key("stdin", text)) for text in printed], 4)
    np.testing.assert_array_equal(majority_vote(ev), [1, 1, 0, 0])


VOTES = st.lists(st.sampled_from(["A", "B", "C", None]), min_size=6, max_size=6)


@settings(deadline=None, max_examples=50)
@given(VOTES, st.sampled_from([1, 2, 3, 6]), st.randoms(use_true_random=False))
def test_verdicts_are_not_looked_at_and_counts_are_those_of_a_tally(votes, group_size, rng):
    outcomes = [answered(vote, "same") for vote in votes]
    verdicts = list(Verdict)
    judged = [
        replace(o, verdict=rng.choice(verdicts), results=tuple(rng.choices(verdicts, k=2)))
        for o in outcomes
    ]
    tally = []
    for start in range(0, 6, group_size):
        group = votes[start : start + group_size]
        tally += [0 if v is None else Counter(group)[v] for v in group]
    for some in (outcomes, judged):
        ev = evidence(some, group_size)
        np.testing.assert_allclose(vote_fraction(ev), np.array(tally) / group_size, rtol=1e-6)
        groups = np.array(tally).reshape(-1, group_size)
        want = (groups == groups.max(axis=1, keepdims=True)) & (groups > 0)
        np.testing.assert_array_equal(majority_vote(ev), want.reshape(-1))


@pytest.mark.parametrize("name", ["majority_vote", "vote_fraction"])
def test_evidence_of_a_judge_that_stopped_early_is_refused(name):
    early = Outcome(WRONG, (Verdict.PASSED, WRONG), 3, 0.1, answers=("A", "B"))
    with pytest.raises(UserError, match=r"row 1 .*2 of 3 tests.*--execution\.run-all-tests"):
        find_reward(name)(evidence([answered("A", "B", "C"), early], 2))


@pytest.mark.parametrize("name", ["majority_vote", "vote_fraction"])
def test_evidence_without_answers_is_refused(name):
    silent = Outcome(WRONG, (Verdict.PASSED, WRONG), 2, 0.1)
    with pytest.raises(
        UserError, match=r"row 0 has 0 answers for 2 tests.*set --execution.run-all-tests"
    ):
        find_reward(name)(evidence([silent, answered("A", "B")], 2))
    with pytest.raises(UserError, match="outcomes=None"):
        find_reward(name)(replace(evidence([silent], 1), outcomes=None))


def test_an_input_that_was_made_and_that_no_program_answers_is_left_out():
    """1, 2, - | 1, 2, - | 1, 3, - | 1, -, -: the third input may be none of the problem."""
    group = [
        *[answered("1", "2", None)] * 2,
        answered("1", "3", None),
        answered("1", None, None),
    ]
    problem = evidence(group, 4)  # whose inputs are right: nobody has solved it
    np.testing.assert_array_equal(majority_vote(problem), [0, 0, 0, 0])
    np.testing.assert_allclose(soft_vote(problem), np.array([4, 4, 3, 3]) / (3 * 3), rtol=1e-6)
    for inputs in ("fuzz", "model"):
        ev = replace(problem, settings=Reward(vote_inputs=inputs))
        np.testing.assert_array_equal(majority_vote(ev), [1, 1, 0, 0])
        np.testing.assert_allclose(vote_fraction(ev), [0.5, 0.5, 0.25, 0], rtol=1e-6)
        np.testing.assert_allclose(soft_vote(ev), np.array([4, 4, 3, 3]) / (2 * 3), rtol=1e-6)
        # One program that answers it has it asked of all.
        asked = replace(evidence([*group[:3], answered("1", "9", "0")], 4), settings=ev.settings)
        np.testing.assert_array_equal(majority_vote(asked), [0, 0, 0, 1])


def test_an_input_that_a_teacher_alone_answers_is_asked():
    own, taught = [answered("1", None)] * 2, [answered("1", "2"), NO_CODE]
    fuzz = Reward(vote_inputs="fuzz")
    ev = replace(evidence(own, 2), teacher=tuple(taught), settings=fuzz)
    np.testing.assert_array_equal(teacher_vote(ev), [0, 0])
    silent = replace(ev, teacher=(answered("1", None), NO_CODE))
    np.testing.assert_array_equal(teacher_vote(silent), [1, 1])
