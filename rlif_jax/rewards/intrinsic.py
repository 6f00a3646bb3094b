"""Rewards from the model's own certainty (RLIF). Float32 [B], larger is more certain.

All read the whole response, end-of-sequence token included, under the policy that sampled it, and
carry no gradient. What lies outside the mask has no influence; a row with an empty mask gives 0.
"""

import jax.numpy as jnp

from rlif_jax.batch import Array, Evidence
from rlif_jax.rewards.registry import reward


def masked_sum_B(x_BC: Array, mask_BC: Array) -> Array:
    """Sum over each row's true mask entries, float32 [B]."""
    return jnp.where(mask_BC, x_BC, 0.0).astype(jnp.float32).sum(axis=1)


def masked_mean_B(x_BC: Array, mask_BC: Array) -> Array:
    """Mean over each row's true mask entries, float32 [B]; 0 for a row without any."""
    return masked_sum_B(x_BC, mask_BC) / jnp.maximum(mask_BC.sum(axis=1), 1)


@reward(needs="stats")
def self_certainty(ev: Evidence) -> Array:
    """mean_t [lse(z_t) - mean_v z_tv] = mean_t KL(U || p_t) + ln V, nats (Intuitor)."""
    return masked_mean_B(ev.stats.self_certainty, ev.mask)


@reward(needs="stats")
def token_entropy(ev: Evidence) -> Array:
    """- mean_t H(p_t), nats (RENT)."""
    return -masked_mean_B(ev.stats.entropy, ev.mask)


@reward(needs="stats")
def token_entropy_sum(ev: Evidence) -> Array:
    """- sum_t H(p_t), nats (EM-RL, token form)."""
    return -masked_sum_B(ev.stats.entropy, ev.mask)


@reward(needs="stats")
def trajectory_entropy(ev: Evidence) -> Array:
    """mean_t ln p(y_t), nats: minus the trajectory entropy of the metrics."""
    return masked_mean_B(ev.stats.logprob, ev.mask)


@reward(needs="stats")
def trajectory_entropy_sum(ev: Evidence) -> Array:
    """sum_t ln p(y_t), nats (EM-RL, sequence form)."""
    return masked_sum_B(ev.stats.logprob, ev.mask)


@reward(needs="stats")
def probability_disparity(ev: Evidence) -> Array:
    """mean_t [p(1)_t - p(2)_t], the largest probability minus the second largest, in [0, 1]."""
    return masked_mean_B(ev.stats.top1 - ev.stats.top2, ev.mask)


@reward(needs="stats")
def sequence_probability(ev: Evidence) -> Array:
    """P(y) / max over the group of P(y), with P(y) = prod_t p(y_t) (RLSC), in [0, 1].

    Computed as exp(sum_t ln p(y_t) - group max), because P(y) itself underflows float32 from
    sum_t ln p = -87 on. The likeliest response of each group has exactly 1. The factor is common to
    a group, so an advantage divided by the group's standard deviation is that of P(y) itself.
    """
    log_NG = masked_sum_B(ev.stats.logprob, ev.mask).reshape(-1, ev.group_size)
    return jnp.exp(log_NG - log_NG.max(axis=1, keepdims=True)).reshape(-1)
