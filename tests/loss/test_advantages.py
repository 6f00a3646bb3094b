"""Group advantages against values worked by hand from the published formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlif_jax.errors import UserError
from rlif_jax.loss.advantages import group_advantages


def test_grpo_advantage_by_hand():
    # Group 1: mean 2, unbiased std 1. Group 2: mean 1/3, unbiased std 0.5773503.
    advantage = group_advantages(np.array([1.0, 2.0, 3.0, 0.0, 0.0, 1.0]), 3, "grpo", 1e-6)
    want = [-0.999999, 0.0, 0.999999, -0.5773493, -0.5773493, 1.1546985]
    np.testing.assert_allclose(advantage, want, rtol=1e-6, atol=1e-7)
    assert advantage.dtype == jnp.float32


def test_dr_grpo_and_plain_advantage_by_hand():
    reward = jnp.array([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    np.testing.assert_allclose(group_advantages(reward, 3, "dr_grpo", 1e-6), [-2, -1, 3, -1, -1, 2])
    np.testing.assert_array_equal(group_advantages(reward, 3, "none", 1e-6), reward)
    np.testing.assert_array_equal(group_advantages(reward, 1, "none", 1e-6), reward)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo"])
def test_equal_rewards_and_rounding_noise_have_no_advantage(kind):
    noise = np.float32(0.7) + np.float32(6e-8) * np.array([0, 1, -1, 2], np.float32)
    reward = np.concatenate([np.full(4, 0.1, np.float32), noise, [0, 0, 0, 1]])
    advantage = np.asarray(group_advantages(reward, 4, kind, 1e-6))
    np.testing.assert_array_equal(advantage[:8], 0.0)
    assert advantage[11] > 0.7


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_std_floor_is_a_share_of_the_largest_reward(scale):
    reward = np.array([-0.1, 0.2], np.float32) * scale  # unbiased std 1.06 of the largest
    for kind in ("grpo", "dr_grpo"):
        assert np.all(group_advantages(reward, 2, kind, 1.07) == 0)
        assert np.all(group_advantages(reward, 2, kind, 1.05) != 0)


def test_groups_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match="samples_per_prompt"):
        group_advantages(np.zeros(4), 1, "grpo", 1e-6)
    with pytest.raises(UserError, match="7 rewards are not whole groups of 2"):
        group_advantages(np.zeros(7), 2, "grpo", 1e-6)
