"""Rewards from tests of the policy, on small matrices E worked by hand: programs by tests."""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.evidence import evidence

from rlif_jax.config import Config, Reward
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.rewards import known_rewards
from rlif_jax.rewards.generated import B4_ALPHA, B4_BETA, b4, b4_score, codet, generated_tests
from rlif_jax.rewards.registry import find_reward

PASSED, WRONG = Verdict.PASSED, Verdict.WRONG_ANSWER
ALL = ("b4", "codet", "generated_tests")


def ran(row: str) -> Outcome:
    """A program by the tests that it passes, such as 110; one of ! does not compile, of - is none.

    Their length is the number of tests.
    """
    results = tuple(PASSED if mark == "1" else WRONG for mark in row)
    if row.startswith("!"):
        results = (Verdict.COMPILE_ERROR,)
    if row.startswith("-"):
        results = ()
    return Outcome(results[0] if results else Verdict.NO_CODE, results, len(row), 0.1)


def evidence_of(*groups: str):
    """Of groups such as "110 110 001", whose outcomes on the problem's tests say nothing."""
    votes = tuple(ran(row) for group in groups for row in group.split())
    group_size = len(groups[0].split())
    nothing = (Outcome(Verdict.NO_CODE, (), 1, 0.0),) * len(votes)
    made = evidence(group_size, nothing, mask=np.ones((len(votes), 1), bool))
    return replace(made, votes=votes, settings=Reward(vote_inputs="model"))


def test_the_share_of_tests_that_pass():
    got = generated_tests(evidence_of("110 --- !!! 111", "01 11 00 --"))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [2 / 3, 0, 0, 1, 1 / 2, 1, 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("group", "best"),
    [
        # 2 tests * sqrt(2) = 2.83 exceeds 1 * sqrt(3) = 1.73 and 0
        ("110 110 001 001 001 000", "110000"),
        # 1 * sqrt(4) = 2 exceeds 1 * sqrt(2), though more programs pass nothing
        ("10 10 10 10 01 01 00 00 00 00 00", "11110000000"),
        # 2 * sqrt(1) = 1 * sqrt(4): both
        ("11 10 10 10 10", "11111"),
        # 1 * sqrt(3) is less than 2 * sqrt(1)
        ("11 10 10 10", "1000"),
        # equal rows of different kinds pass nothing: no test, no class
        ("00 -- !! 00", "0000"),
        # two classes of one, each of one test
        ("10 01 -- 00", "1100"),
        ("1", "1"),
    ],
)
def test_codet_by_hand(group, best):
    got = codet(evidence_of(group))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, [int(mark) for mark in best])


def ln_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def test_the_score_of_b4_by_hand():
    """E: two programs pass tests 1 and 2, one passes 2 and 3, one passes none. N 4, M 3.

    The class of 110 has n_y = 2, n_x = 2; the other two programs pass 1 of 4 runs of tests 1 and 2,
    and 1 of 2 of test 3. That of 011 has n_y = 2, n_x = 1; the other three pass 2 of 6 runs of
    tests 2 and 3, and 2 of 3 of test 1.
    """
    E = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
    a, b0 = B4_ALPHA, B4_BETA
    first = ln_beta(2 + a, 3 - 2 + 1) + ln_beta(2 + a, 4 - 2 + 1)
    first += ln_beta(1 + 1, 4 - 1 + 1) + ln_beta(1 + 1, 2 - 1 + b0)
    other = ln_beta(2 + a, 3 - 2 + 1) + ln_beta(1 + a, 4 - 1 + 1)
    other += ln_beta(2 + 1, 6 - 2 + 1) + ln_beta(2 + 1, 3 - 2 + b0)
    assert b4_score(E, np.array([1, 1, 0, 0], bool)) == pytest.approx(first, abs=1e-6)
    assert b4_score(E, np.array([0, 0, 1, 0], bool)) == pytest.approx(other, abs=1e-6)
    assert first > other
    np.testing.assert_array_equal(b4(evidence_of("110 110 011 000")), [1, 1, 0, 0])


@pytest.mark.parametrize(
    ("group", "best"),
    [
        # Tests, programs, runs on what the class passes, runs on what it fails:
        # 111: -6.9 - 20.0 - 4.7 - 11.5 = -43.1; 100: -20.0 - 20.0 - 1.1 - 54.4 = -95.6,
        # for two programs would pass two wrong tests, each time at the cost of ln b0 = 11.5
        ("111 111 100 100", "1100"),
        # Classes alike but for their names
        ("10 01 -- 00", "1100"),
        ("10 10 01 01", "1111"),
        ("00 -- !! 00", "0000"),
        ("1", "1"),
    ],
)
def test_b4_by_hand(group, best):
    got = b4(evidence_of(group))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, [int(mark) for mark in best])


def test_b4_and_codet_can_differ():
    """One program passes three tests, eight others pass one of them.

    CodeT: 3 * sqrt(1) = 3 exceeds 1 * sqrt(8) = 2.83. B4, in the order of its four terms: the eight
    have -20.0 - 13.8 - 0.7 - 33.8 = -68.4, the one has -6.9 - 51.6 - 16.7 - 11.5 = -86.8, of which
    the most is for eight programs that would be wrong.
    """
    ev = evidence_of("111 100 100 100 100 100 100 100 100")
    np.testing.assert_array_equal(codet(ev), [1] + [0] * 8)
    np.testing.assert_array_equal(b4(ev), [0] + [1] * 8)


@pytest.mark.parametrize("name", ALL)
def test_groups_are_apart_and_may_have_no_test(name):
    fn = find_reward(name)
    untested = replace(evidence_of("1 1 0", "1 1 0"))
    nothing = (Outcome(Verdict.NO_CODE, (), 0, 0.0),) * 3
    np.testing.assert_array_equal(
        fn(replace(untested, votes=(*nothing, *untested.votes[3:]))), [0, 0, 0, 1, 1, 0]
    )
    np.testing.assert_array_equal(fn(evidence_of("11 -- --", "0 1 1")), [1, 0, 0, 0, 1, 1])
    assert find_reward(name).all_tests and find_reward(name).needs == "exec"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("01", min_size=4, max_size=4), min_size=1, max_size=8), st.randoms())
def test_the_order_of_programs_and_tests_means_nothing(rows, rng):
    order, columns = list(range(len(rows))), list(range(4))
    rng.shuffle(order)
    rng.shuffle(columns)
    shuffled = ["".join(rows[i][j] for j in columns) for i in order]
    for name in ALL:
        fn = find_reward(name)
        reward = np.asarray(fn(evidence_of(" ".join(rows))))
        np.testing.assert_array_equal(fn(evidence_of(" ".join(shuffled))), reward[order])
        passing = np.array([row != "0000" for row in rows])
        assert not reward[~passing].any()
        assert reward.any() == passing.any()


@pytest.mark.parametrize("name", ALL)
def test_evidence_without_tests_of_the_policy_is_refused(name):
    ev = evidence_of("11 10")
    for other in (replace(ev, votes=None), replace(ev, settings=Reward(vote_inputs="fuzz"))):
        with pytest.raises(UserError, match=r"set reward\.vote_inputs=model"):
            find_reward(name)(other)


@pytest.mark.parametrize("inputs", ["problem", "examples", "fuzz"])
@pytest.mark.parametrize("name", ALL)
def test_a_configuration_without_tests_of_the_policy_is_refused(name, inputs):
    reward = Reward(terms=(("random", 0.1), (name, 1.0)), vote_inputs=inputs)
    with pytest.raises(
        UserError,
        match=rf"reward\.terms names {name}, for .* reward\.vote_inputs={inputs} has none written; "
        r"use reward\.vote_inputs=model",
    ):
        validate(Config(reward=reward), known_rewards())
    validate(Config(reward=replace(reward, vote_inputs="model")), known_rewards())


def test_a_number_of_tests_that_nothing_reads_is_refused():
    terms = (("majority_vote", 1.0),)
    few = Reward(terms=terms, vote_inputs="fuzz", generated_tests=4)
    with pytest.raises(UserError, match=r"reward\.generated_tests=4 is read only with .* at 8"):
        validate(Config(reward=few), known_rewards())
    validate(Config(reward=replace(few, vote_inputs="model")), known_rewards())
    with pytest.raises(UserError, match=r"reward\.generated_tests=0 must be at least 1"):
        validate(Config(reward=replace(few, generated_tests=0)), known_rewards())
