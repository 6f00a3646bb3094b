"""Each reward against hand-worked values, and the laws that all of them obey."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.evidence import MASK, NAN, OUTCOMES, evidence

from rlif_jax.config import Reward
from rlif_jax.errors import UserError
from rlif_jax.rewards import controls, intrinsic, known_rewards, verifiable
from rlif_jax.rewards.registry import find_reward, reward

VALUES = [[1.0, 2.0, 6.0], [4.0, 1.0, NAN], [0.5, NAN, NAN], [NAN, NAN, NAN]]
MEANS, SUMS = np.array([3.0, 2.5, 0.5, 0.0]), np.array([9.0, 5.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("name", "field", "want"),
    [
        ("self_certainty", "self_certainty", MEANS),
        ("token_entropy", "entropy", -MEANS),
        ("token_entropy_sum", "entropy", -SUMS),
        ("trajectory_entropy", "logprob", MEANS),
        ("trajectory_entropy_sum", "logprob", SUMS),
    ],
)
def test_means_and_sums_by_hand(name, field, want):
    got = find_reward(name)(evidence(**{field: VALUES}))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert got.dtype == jnp.float32


def test_probability_disparity_by_hand():
    top1 = [[0.9, 0.6, 0.5], [0.7, 0.4, NAN], [1.0, NAN, NAN], [NAN] * 3]
    top2 = [[0.1, 0.3, 0.5], [0.3, 0.2, NAN], [0.0, NAN, NAN], [NAN] * 3]
    got = intrinsic.probability_disparity(evidence(top1=top1, top2=top2))
    np.testing.assert_allclose(got, [1.1 / 3, 0.3, 1.0, 0.0], rtol=1e-6)


def test_sequence_probability_is_relative_to_the_likeliest_of_the_group():
    # ln P: -600, -602 | -1000, 0. None but the last is representable as a float32 probability.
    logprob = [[-300.0, -200.0, -100.0], [-301.0, -301.0, NAN], [-1000.0, NAN, NAN], [NAN] * 3]
    got = intrinsic.sequence_probability(evidence(logprob=logprob))
    np.testing.assert_allclose(got, [1.0, np.exp(-2.0), 0.0, 1.0], rtol=1e-6)


def test_sequence_probability_of_one_group():
    logprob = np.log([[0.5, 0.5, 1], [0.5, 1, 1], [0.25, 1, 1], [1, 1, 1]])
    got = intrinsic.sequence_probability(evidence(4, logprob=logprob, mask=MASK | True))
    np.testing.assert_allclose(got, [0.25, 0.5, 0.25, 1.0], rtol=1e-6)


def test_brier_by_hand():
    """q: e^-1, 1, e^-2, and 1 of no token; the first and the last row pass."""
    logprob = [[-1.0, -2.0, 0.0], [0.0, 0.0, NAN], [-2.0, NAN, NAN], [NAN] * 3]
    want = [1 - (np.exp(-1) - 1) ** 2, -1.0, -np.exp(-4), 1.0]
    np.testing.assert_allclose(verifiable.brier(evidence(logprob=logprob)), want, rtol=1e-6)


def test_verifiable_rewards_by_hand():
    np.testing.assert_array_equal(verifiable.tests_passed(evidence()), [1, 0, 0, 1])
    np.testing.assert_array_equal(verifiable.tests_fraction(evidence()), [1, 0.25, 0, 1])


@pytest.mark.parametrize("name", ["tests_passed", "tests_fraction", "shuffled"])
def test_missing_outcomes_are_refused(name):
    with pytest.raises(UserError, match="outcomes=None"):
        find_reward(name)(evidence(outcomes=None))
    with pytest.raises(UserError, match="3 outcomes for 4 rows"):
        find_reward(name)(evidence(outcomes=OUTCOMES[:3]))


def test_length_and_constant():
    np.testing.assert_array_equal(controls.length(evidence()), [-3, -2, -1, 0])
    np.testing.assert_array_equal(controls.constant(evidence()), [1, 1, 1, 1])


def rows_of(count, key):
    mask = np.ones((count, 1), bool)
    outcomes = tuple(OUTCOMES[0] if i % 4 == 0 else OUTCOMES[2] for i in range(count))
    return evidence(outcomes=outcomes, mask=mask, key=key)


def test_random_is_a_fair_coin_fixed_by_the_key_and_the_row():
    coin = np.asarray(controls.random(rows_of(4096, key=3)))
    assert set(coin.tolist()) == {0.0, 1.0}
    assert abs(coin.mean() - 0.5) < 4 * 0.5 / np.sqrt(4096)
    np.testing.assert_array_equal(controls.random(rows_of(4096, key=3)), coin)
    np.testing.assert_array_equal(controls.random(rows_of(100, key=3)), coin[:100])
    other = np.asarray(controls.random(rows_of(4096, key=4)))
    assert 0.45 < (other == coin).mean() < 0.55


def test_shuffled_keeps_the_values_and_moves_the_rows():
    ev = rows_of(400, key=1)
    real, got = np.asarray(verifiable.tests_passed(ev)), np.asarray(controls.shuffled(ev))
    assert got.sum() == real.sum() == 100
    # A passing row stays one with probability 1/4: 25 of 100, standard deviation about 3.8.
    assert 5 < (got * real).sum() < 45
    np.testing.assert_array_equal(controls.shuffled(rows_of(400, key=1)), got)


def test_random_and_shuffled_draw_independently():
    ev = rows_of(4096, key=0)
    pair = np.corrcoef(controls.random(ev), controls.shuffled(ev))[0, 1]
    assert abs(pair) < 4 / np.sqrt(4096)


def test_all_rewards_of_the_field_are_known():
    own = [n for n in known_rewards() if find_reward(n).__module__.startswith("rlif_jax.")]
    assert tuple(own) == (  # other tests of this process may have added rewards
        "b4",
        "behaviour_entropy",
        "brier",
        "codet",
        "constant",
        "evol",
        "generated_tests",
        "length",
        "majority_vote",
        "probability_disparity",
        "random",
        "self_certainty",
        "sequence_probability",
        "shuffled",
        "soft_vote",
        "teacher_vote",
        "tests_fraction",
        "tests_passed",
        "token_entropy",
        "token_entropy_sum",
        "trajectory_entropy",
        "trajectory_entropy_sum",
        "vote_fraction",
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    junk=st.sampled_from([np.nan, np.inf, -np.inf, -7.0]),
)
def test_neither_padding_nor_the_order_of_tokens_matters(seed, lengths, junk):
    rng = np.random.default_rng(seed)
    mask = np.arange(6) < np.array(lengths)[:, None]
    stats = {f: rng.normal(size=(4, 6)) for f in ("logprob", "entropy", "self_certainty")}
    stats |= {f: rng.uniform(size=(4, 6)) for f in ("top1", "top2")}
    spoilt = {f: np.where(mask, x, junk) for f, x in stats.items()}
    order = rng.permuted(np.tile(np.arange(6), (4, 1)), axis=1)
    move = lambda x: np.take_along_axis(x, order, axis=1)

    def voted(**given):
        asked = Reward(vote_inputs="model")
        return replace(evidence(**given), votes=OUTCOMES, settings=asked)

    for name in known_rewards():
        fn = find_reward(name)
        want = fn(voted(mask=mask, **stats))
        assert np.isfinite(want).all()
        np.testing.assert_array_equal(fn(voted(mask=mask, **spoilt)), want, err_msg=name)
        moved = fn(voted(mask=move(mask), **{f: move(x) for f, x in spoilt.items()}))
        np.testing.assert_allclose(moved, want, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_wrong_need_and_a_taken_name_are_refused():
    with pytest.raises(UserError, match="needs='logits'"):
        reward(needs="logits")

    with pytest.raises(UserError, match=r"needs='stats', all_tests=True.*runs tests: write"):
        reward(needs="stats", all_tests=True)
    with pytest.raises(UserError, match=r"needs='none', teacher=True.*of a teacher: write"):
        reward(needs="none", teacher=True)

    def length(ev):
        return ev.mask.sum(axis=1)

    with pytest.raises(UserError, match="two rewards called 'length'"):
        reward(needs="none")(length)
    assert find_reward("length") is controls.length
