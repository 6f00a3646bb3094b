"""Sums of reward terms by hand, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import ROOT

from rlif_jax.batch import Evidence, TokenStats
from rlif_jax.config import Config, Execution, Optim, Reward
from rlif_jax.config.load import read_config_file
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.loss.advantages import group_advantages
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.rewards import (
    combine,
    known_rewards,
    needs_all_tests,
    needs_execution,
    needs_teacher,
    reward_at,
    runs_all_tests,
    samplings,
)

LENGTHS = np.array([4, 1, 2, 3])
OUTCOMES = tuple(
    Outcome(v, (v,), 1, 0.0)
    for v in (Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.PASSED, Verdict.PASSED)
)
LOGPROB_B = np.array([-0.5, -1.5, -2.0, -1.0])


def evidence(logprob_B=LOGPROB_B, outcomes=OUTCOMES, max_new_tokens=None):
    """Four rows in two groups, every token of a row with the same log-probability."""
    mask = np.arange(4) < LENGTHS[:, None]
    zeros = jnp.zeros((4, 4), jnp.float32)
    logprob = jnp.asarray(np.where(mask, logprob_B[:, None], np.nan), jnp.float32)
    return Evidence(
        stats=TokenStats(logprob, zeros, zeros, zeros, zeros),
        mask=jnp.asarray(mask),
        truncated=jnp.zeros(4, bool),
        key=jax.random.key(0),
        group_size=2,
        outcomes=outcomes,
        max_new_tokens=max_new_tokens,
    )


HYBRID = (("tests_passed", 2.0), ("trajectory_entropy", 0.1))


def test_weighted_sum_by_hand():
    reward_B, terms = combine(Reward(terms=HYBRID), evidence())
    np.testing.assert_allclose(reward_B, [1.95, -0.15, 1.8, 1.9], rtol=1e-6)
    np.testing.assert_array_equal(terms["tests_passed"], [1, 0, 1, 1])
    np.testing.assert_allclose(terms["trajectory_entropy"], LOGPROB_B)
    assert reward_B.dtype == jnp.float32 and set(terms) == {"tests_passed", "trajectory_entropy"}


@pytest.mark.parametrize(
    ("step", "weights"),
    [
        *((1, (1.0, 0.0)), (5, (1.0, 0.0)), (6, (0.9, 0.2))),
        *((10, (0.5, 1.0)), (15, (0.0, 2.0)), (99, (0.0, 2.0))),
    ],
)
def test_weights_change_between_two_steps(step, weights):
    ramps = (("trajectory_entropy", 5, 15, 0.0), ("tests_passed", 5, 15, 2.0))
    reward = Reward(terms=(("trajectory_entropy", 1.0), ("tests_passed", 0.0)), ramps=ramps)
    then = reward_at(reward, step)
    assert [name for name, _ in then.terms] == ["trajectory_entropy", "tests_passed"]
    assert [weight for _, weight in then.terms] == pytest.approx(weights)
    want = weights[0] * LOGPROB_B + weights[1] * np.array([1, 0, 1, 1])
    np.testing.assert_allclose(combine(then, evidence())[0], want, rtol=1e-6)


@pytest.mark.parametrize(
    ("ramps", "message"),
    [
        ((("length", 1, 2, 0.0),), "names 'length', which is not in reward.terms"),
        ((("tests_passed", 4, 4, 0.0),), "change from step 4 to step 4"),
        ((("tests_passed", 1, 2, 0.0), ("tests_passed", 3, 4, 1.0)), "a reward twice"),
        ((("tests_passed", 0, 2, 0.0),), "reward.ramps.*holds 0, which must be at least 1"),
    ],
)
def test_ramps_that_mean_nothing(ramps, message):
    with pytest.raises(UserError, match=message):
        validate(Config(reward=Reward(ramps=ramps)), known_rewards())


def test_normalise_then_sum_by_hand():
    # In a group of two, (r - mean) / unbiased std is +-1/sqrt(2), and 0 for equal values.
    reward_B, terms = combine(Reward(terms=HYBRID, combine="normalise_then_sum"), evidence())
    unit = 1 / np.sqrt(2)
    np.testing.assert_allclose(reward_B, np.array([2.1, -2.1, -0.1, 0.1]) * unit, rtol=1e-5)
    np.testing.assert_array_equal(terms["tests_passed"], [1, 0, 1, 1])


def test_the_floor_of_the_loss_is_that_of_the_terms():
    cfg = Reward(terms=HYBRID, combine="normalise_then_sum")
    # Of their largest value, tests differ by 0.71 in one group, certainties by 0.47 and 0.35.
    for floor, weights in ((0.4, (2.1, 0.0)), (0.5, (2.0, 0.0)), (0.8, (0.0, 0.0))):
        reward_B, _ = combine(cfg, evidence(), floor)
        want = [weights[0], -weights[0], -weights[1], weights[1]]
        np.testing.assert_allclose(reward_B, np.array(want) / np.sqrt(2), rtol=1e-5)


def test_certainty_has_a_tenth_of_the_size_of_tests_in_every_group():
    """The advantages of configs/hybrid.py where one sample passes, and where all fail."""
    cfg = read_config_file(ROOT / "configs/hybrid.py")
    validate(cfg, known_rewards())
    failed, passed = OUTCOMES[1], OUTCOMES[0]
    top1 = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.9, (8, 1)), jnp.float32)
    ev = Evidence(
        stats=TokenStats(*[jnp.zeros((8, 1))] * 3, top1, jnp.zeros((8, 1))),
        mask=jnp.ones((8, 1), bool),
        truncated=jnp.zeros(8, bool),
        key=jax.random.key(0),
        group_size=4,
        outcomes=(failed, passed, failed, failed, *[failed] * 4),
    )
    reward_B, _ = combine(cfg.reward, ev, cfg.loss.std_floor)
    advantage_B = group_advantages(reward_B, 4, cfg.loss.advantage, cfg.loss.std_floor)
    std_N = np.asarray(advantage_B, np.float64).reshape(2, 4).std(axis=1, ddof=1)
    assert 0.9 < std_N[0] < 1.1
    assert std_N[1] == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("terms", [HYBRID, (("trajectory_entropy", 1.0), ("token_entropy", 1.0))])
def test_short_rows_are_penalised_once(terms):
    plain = Reward(terms=terms)
    penalised = Reward(terms=terms, short_length_tokens=3, short_length_penalty=0.25)
    without, _ = combine(plain, evidence())
    reward_B, values = combine(penalised, evidence())
    np.testing.assert_allclose(reward_B - without, [0, -0.25, -0.25, 0], atol=1e-6)
    np.testing.assert_allclose(values["short_length_penalty"], [0, -0.25, -0.25, 0])


def test_no_penalty_without_a_certainty_term():
    cfg = Reward(
        terms=(("tests_passed", 1.0), ("length", 0.0)),
        short_length_tokens=3,
        short_length_penalty=0.25,
    )
    reward_B, terms = combine(cfg, evidence())
    np.testing.assert_array_equal(reward_B, [1, 0, 1, 1])
    assert "short_length_penalty" not in terms


@pytest.mark.parametrize(
    ("buffer", "longest", "penalty_B"),
    [
        (2, 4, [-0.5, 0, 0, -0.25]),  # lengths 4, 1, 2 and 3: from 2 tokens on
        (4, 5, [-0.375, 0, -0.125, -0.25]),
        (1, 5, [0, 0, 0, 0]),
        (1, 4, [-0.5, 0, 0, 0]),
    ],
)
def test_overlong_rows_are_penalised_by_hand(buffer, longest, penalty_B):
    """0 up to the buffer, and linearly down to the whole penalty at the longest completion."""
    terms = (("tests_passed", 1.0),)
    penalised = Reward(terms=terms, overlong_buffer_tokens=buffer, overlong_penalty=0.5)
    for combination in ("sum", "normalise_then_sum"):
        ways = [dataclasses.replace(r, combine=combination) for r in (Reward(terms), penalised)]
        (without, _), (reward_B, values) = (
            combine(way, evidence(max_new_tokens=longest)) for way in ways
        )
        np.testing.assert_allclose(reward_B - without, penalty_B, atol=1e-6)
        np.testing.assert_allclose(values["overlong_penalty"], penalty_B, atol=1e-6)


def test_overlong_rows_without_a_longest_length_are_refused():
    cfg = Reward(overlong_buffer_tokens=2, overlong_penalty=0.5)
    with pytest.raises(UserError, match=r"overlong_buffer_tokens=2 needs Evidence.max_new_tokens"):
        combine(cfg, evidence())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad):
    logprob_B = np.array([-0.5, -1.0, bad, -1.0])
    with pytest.raises(UserError, match=r"'trajectory_entropy' is -?(nan|inf) in row 2"):
        combine(Reward(terms=HYBRID), evidence(logprob_B))


def test_a_weight_that_overflows_the_sum_is_refused():
    cfg = Reward(terms=(("length", 1e38), ("length", 1e38)))
    with pytest.raises(UserError, match="'sum of all terms' is -inf in row 0"):
        combine(cfg, evidence())


def test_an_unknown_term_is_refused_with_the_known_ones():
    cfg = Reward(terms=(("vibes", 1.0),))
    with pytest.raises(UserError, match=r"'vibes'.*probability_disparity.*tests_passed"):
        combine(cfg, evidence())
    for question in (needs_execution, needs_all_tests, needs_teacher):
        with pytest.raises(UserError, match="vibes"):
            question(cfg)


def test_which_rewards_need_programs_to_run():
    assert needs_execution(Reward(terms=HYBRID))
    assert needs_execution(Reward(terms=(("shuffled", 1.0),)))
    assert not needs_execution(Reward(terms=(("token_entropy", 1.0), ("random", 1.0))))


@pytest.mark.parametrize(
    ("terms", "whether"),
    [
        (("tests_passed", "token_entropy", "random", "shuffled"), False),
        (("tests_fraction",), True),
        (("token_entropy", "majority_vote"), True),
        (("vote_fraction", "tests_passed"), True),
        ((), False),
    ],
)
def test_which_rewards_read_all_tests(terms, whether):
    assert needs_all_tests(Reward(terms=tuple((name, 1.0) for name in terms))) is whether


def test_which_rewards_need_a_teacher():
    voted = Reward(terms=(("tests_passed", 1.0), ("teacher_vote", 0.0)))
    assert needs_teacher(voted) and needs_execution(voted) and needs_all_tests(voted)
    assert not needs_teacher(Reward(terms=(("majority_vote", 1.0),)))


@pytest.mark.parametrize(
    ("term", "inputs", "monitor", "count"),
    [
        ("majority_vote", "problem", True, 1),
        ("majority_vote", "model", False, 2),
        ("teacher_vote", "fuzz", True, 2),
        ("teacher_vote", "model", True, 3),
        ("random", "model", False, 1),  # no program is run, so none votes
    ],
)
def test_how_often_a_step_samples(term, inputs, monitor, count):
    reward = Reward(terms=((term, 1.0),), vote_inputs=inputs)
    cfg = dataclasses.replace(Config(), reward=reward, execution=Execution(monitor=monitor))
    assert samplings(cfg) == count


@pytest.mark.parametrize(
    ("reward", "decay", "message"),
    [
        ((("teacher_vote", 1.0),), None, r"names 'teacher_vote'.* set optim\.average_decay, such"),
        ((("majority_vote", 1.0),), 0.9, r"reward\.teacher_pool='joint' is read by .* alone; name"),
    ],
)
def test_a_teacher_and_its_votes_go_together(reward, decay, message):
    joint = Reward(terms=reward, teacher_pool="joint")
    with pytest.raises(UserError, match=message):
        validate(Config(reward=joint, optim=Optim(average_decay=decay)), known_rewards())


def test_a_teacher_with_votes_is_allowed():
    for pool in ("teacher", "joint"):
        voted = Reward(terms=(("teacher_vote", 1.0),), teacher_pool=pool)
        validate(Config(reward=voted, optim=Optim(average_decay=0.99)), known_rewards())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 1.5])
def test_a_decay_lies_between_0_and_1(decay):
    with pytest.raises(UserError, match=rf"optim\.average_decay={decay} must be in \(0, 1\)"):
        validate(Config(optim=Optim(average_decay=decay)), known_rewards())


def test_the_judge_of_a_run_goes_on_when_a_reward_or_the_user_says_so():
    fraction = Config(reward=Reward(terms=(("vote_fraction", 1.0),)))
    assert runs_all_tests(fraction)
    assert not runs_all_tests(Config())
    assert runs_all_tests(Config(execution=Execution(run_all_tests=True)))


def test_a_term_of_the_wrong_shape_is_refused(monkeypatch):
    from rlif_jax.rewards import registry

    monkeypatch.setitem(registry._BY_NAME, "per_token", lambda ev: ev.stats.entropy)
    registry._BY_NAME["per_token"].needs = "stats"
    with pytest.raises(UserError, match=r"'per_token' has shape \(4, 4\).*4 rows"):
        combine(Reward(terms=(("per_token", 1.0),)), evidence())
