"""Group statistics: equal rewards at every magnitude and group size, and those that differ."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.placed import batch_sharding

from rlif_jax.batch import Evidence, TokenStats
from rlif_jax.config import Reward
from rlif_jax.errors import UserError
from rlif_jax.groups import group_normalised, group_statistics, informative_groups
from rlif_jax.loss.advantages import group_advantages
from rlif_jax.metrics import reward_metrics
from rlif_jax.rewards import combine
from rlif_jax.sharding import make_mesh

FLOOR = 1e-6
SIZES = st.integers(2, 64) | st.sampled_from((2, 3, 8, 16, 33, 64))
MAGNITUDES = st.floats(1e-3, 1e4).map(np.float32)
SIGNS = st.sampled_from([1, -1])
ON_DEVICES = (2, 3, 8, 16, 33, 64)  # a compiled program each


@functools.partial(jax.jit, static_argnums=(1, 2))
def compiled(reward_B, G, floor=FLOOR):
    return [group_advantages(reward_B, G, kind, floor) for kind in ("grpo", "dr_grpo")]


def formula(reward_B, G):
    """(r - mean) / (unbiased std + 1e-6) in float64."""
    reward_NG = np.asarray(reward_B, np.float64).reshape(-1, G)
    centred_NG = reward_NG - reward_NG.mean(axis=1, keepdims=True)
    std_N1 = np.sqrt((centred_NG**2).sum(axis=1, keepdims=True) / (G - 1))
    return (centred_NG / (std_N1 + 1e-6)).reshape(-1)


def assert_no_advantage(reward_B, G, floor=FLOOR):
    """In every path by which a training step reads a group."""
    assert reward_B.dtype == np.float32
    np.testing.assert_array_equal(group_normalised(reward_B, G, floor), 0.0)
    if G in ON_DEVICES:
        np.testing.assert_array_equal(compiled(reward_B, G, floor), 0.0)
    assert reward_metrics(reward_B, {}, G, floor)["reward/zero_std_groups"] == 1.0


@settings(max_examples=100)
@given(SIZES, MAGNITUDES, SIGNS)
def test_equal_rewards_have_exactly_no_advantage(G, size, sign):
    assert_no_advantage(np.full(G, sign * size, np.float32), G)
    assert reward_metrics(np.full(G, size), {}, G, 0.0)["reward/group_std"] == 0.0


@pytest.mark.parametrize("G", ON_DEVICES)
def test_equal_rewards_of_a_thousand_magnitudes(G):
    """Without a floor: nothing is left that it would have to hide."""
    size_N = np.geomspace(1e-3, 1e4, 1000, dtype=np.float32)
    assert_no_advantage(np.repeat(size_N, G), G, floor=0.0)
    op_by_op = group_normalised(jnp.repeat(size_N, G), G, 0.0)
    np.testing.assert_array_equal(op_by_op, 0.0)


@settings(max_examples=100)
@given(SIZES, MAGNITUDES, SIGNS, st.integers(0, 2**31))
def test_a_few_units_in_the_last_place_have_no_advantage(G, size, sign, seed):
    steps_G = np.random.default_rng(seed).integers(-3, 4, G).astype(np.float32)
    assert_no_advantage(sign * (size + steps_G * np.spacing(size)), G)


@settings(max_examples=100)
@given(SIZES, MAGNITUDES, SIGNS, st.floats(1e-4, 1.0), st.integers(0, 2**31))
def test_real_differences_pass_at_every_magnitude(G, size, sign, spread, seed):
    relative_G = np.random.default_rng(seed).uniform(-1, 1, G)
    relative_G[:2] = -1, 1
    reward_B = (sign * size * (1 + spread * relative_G)).astype(np.float32)
    want = formula(reward_B, G)
    if G in ON_DEVICES:
        np.testing.assert_allclose(compiled(reward_B, G)[0], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(group_normalised(reward_B, G, FLOOR), want, rtol=1e-4, atol=1e-5)
    metrics = reward_metrics(reward_B, {}, G, FLOOR)
    assert metrics["reward/zero_std_groups"] == 0.0
    std = np.asarray(reward_B, np.float64).std(ddof=1)
    assert metrics["reward/group_std"] == pytest.approx(std, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_overflow_nor_vanish(scale):
    reward_B = np.float32(scale) * np.array([1, 2, 3, 6], np.float32)
    for one in (reward_B, jnp.asarray(reward_B)):
        group = group_statistics(one, 4, FLOOR)
        np.testing.assert_allclose(group.std, [[scale * np.sqrt(14 / 3)]], rtol=1e-6)
        assert group.differs.all()


def test_a_group_differs_by_itself():
    reward_B = np.float32([30, 30, 30, 1e-3, 2e-3, 3e-3, 0, 0, 0, 1e4, 1e4, -1e4])
    got = np.asarray(compiled(reward_B, 3)[0]).reshape(4, 3)
    np.testing.assert_array_equal(got[[0, 2]], 0.0)
    unit = 1 / np.sqrt(3)
    np.testing.assert_allclose(got[1], np.array([-1, 0, 1]) * 1e-3 / (1e-3 + 1e-6), rtol=1e-4)
    np.testing.assert_allclose(got[3], [unit, unit, -2 * unit], rtol=1e-5)


ROWS, G, C = 32, 16, 1000


def certainty(self_certainty_BC):
    """Evidence of B completions of C tokens with these certainties."""
    B = self_certainty_BC.shape[0]
    zeros = jnp.zeros_like(self_certainty_BC)
    return Evidence(
        stats=TokenStats(zeros, zeros, self_certainty_BC, zeros, zeros),
        mask=jnp.ones_like(self_certainty_BC, bool),
        truncated=jnp.zeros(B, bool),
        key=jax.random.key(0),
        group_size=G,
    )


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 2, 2), (1, 8, 1)])
def test_identical_completions_have_no_advantage_on_a_mesh(axes):
    """Certainties of the same tokens, and in orders that give means some units apart."""
    rng = np.random.default_rng(0)
    tokens_C = rng.uniform(20, 40, C).astype(np.float32)
    same_BC = np.tile(tokens_C, (ROWS, 1))
    moved_BC = rng.permuted(same_BC, axis=1)
    mesh = make_mesh(*axes)
    terms = (("self_certainty", 1.0),)
    with jax.set_mesh(mesh):
        for rows_BC in (same_BC, moved_BC):
            ev = certainty(jax.device_put(rows_BC, batch_sharding(mesh)))
            reward_B, _ = combine(Reward(terms=terms), ev)
            assert len(reward_B.sharding.device_set) == 8
            assert_no_advantage(np.asarray(reward_B), G)
            np.testing.assert_array_equal(compiled(reward_B, G), 0.0)
            summed_B, _ = combine(Reward(terms=terms, combine="normalise_then_sum"), ev)
            np.testing.assert_array_equal(summed_B, 0.0)
    assert len(np.unique(np.asarray(reward_B))) > 1  # moved_BC: the means do differ


@pytest.mark.parametrize("to", [np.asarray, jnp.asarray], ids=["host", "devices"])
def test_groups_with_something_to_learn_are_told_from_those_without(to):
    rewards = [[0, 0, 0], [1, 1, 1], [0, 1, 0], [30, 30, 30.1], [12.3456] * 3]
    reward_B = to(np.float32(rewards).reshape(-1))
    np.testing.assert_array_equal(
        informative_groups(reward_B, 3, FLOOR), [False, False, True, True, False]
    )
    np.testing.assert_array_equal(
        informative_groups(reward_B, 3, 0.01), [False, False, True, False, False]
    )


def test_rows_that_are_not_whole_groups_are_refused():
    with pytest.raises(UserError, match="7 rewards are not whole groups of 2"):
        group_statistics(np.zeros(7), 2, FLOOR)
