"""Rewards from the model's own certainty (RLIF). Float32 [B], larger is more certain.

All read the part of the response that `reward.over` names, the whole with its end-of-sequence token
by default, under the policy that sampled it, and carry no gradient. What lies outside the mask has
no influence; a row with an empty mask gives 0. A row that lacks the part, such as one without a
program, has the least of its group, so that nothing is gained by leaving it out.
"""

import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Array, Evidence
from rlif_jax.config.spans import Span
from rlif_jax.rewards.registry import reward


def masked_sum_B(x_BC: Array, mask_BC: Array) -> Array:
    """Sum over each row's true mask entries, float32 [B]."""
    return jnp.where(mask_BC, x_BC, 0.0).astype(jnp.float32).sum(axis=1)


def masked_mean_B(x_BC: Array, mask_BC: Array) -> Array:
    """Mean over each row's true mask entries, float32 [B]; 0 for a row without any."""
    return masked_sum_B(x_BC, mask_BC) / jnp.maximum(mask_BC.sum(axis=1), 1)


def certainty_B(ev: Evidence, x_BC: Array, aggregate: str = "") -> Array:
    """Certainty of each row, float32 [B], from that of its tokens [B, C].

    `ev.settings` says which tokens and how they add up (DeepConf, arXiv 2508.15260, reads tails and
    lowest windows); `aggregate` goes before it.
    """
    settings = ev.settings
    span = Span.parse(settings.over)
    read_BC = ev.mask if ev.read is None else ev.mask & ev.read
    if span.kind == "tail":
        left_BC = jnp.cumsum(read_BC[:, ::-1], axis=1)[:, ::-1]
        read_BC = read_BC & (left_BC <= span.width)
    elif span.kind == "lowest_window":
        read_BC = _lowest_window(x_BC, read_BC, span.width)
    x_BC = jnp.asarray(x_BC, jnp.float32)
    match aggregate or settings.aggregate:
        case "mean":
            value_B = masked_mean_B(x_BC, read_BC)
        case "sum":
            value_B = masked_sum_B(x_BC, read_BC)
        case "min":
            value_B = jnp.where(read_BC, x_BC, jnp.inf).min(axis=1)
        case _:
            known_BC = jnp.where(read_BC, x_BC, jnp.nan)
            value_B = jnp.nanquantile(known_BC, settings.quantile or 0.0, axis=1)
    some_B = read_BC.any(axis=1)
    value_B = jnp.where(some_B, value_B, 0.0)
    if not span.part:
        return value_B
    value_NG, some_NG = (v_B.reshape(-1, ev.group_size) for v_B in (value_B, some_B))
    least_N1 = jnp.where(some_NG, value_NG, jnp.inf).min(axis=1, keepdims=True)
    least_N1 = jnp.where(some_NG.any(axis=1, keepdims=True), least_N1, 0.0)
    return jnp.where(some_NG, value_NG, least_N1).reshape(-1)


def _lowest_window(x_BC: Array, mask_BC: Array, width: int) -> Array:
    """The `width` neighbouring tokens of the least sum, bool [B, C]; of a shorter row all.

    A row's mask is one run. Of several such windows the first counts.
    """
    mask_BC, C = np.asarray(mask_BC), mask_BC.shape[1]
    # Float64, for a window is the difference of two running sums.
    upto_BC = np.cumsum(np.where(mask_BC, np.asarray(x_BC, np.float64), 0.0), axis=1)
    upto_BC = np.pad(np.pad(upto_BC, ((0, 0), (1, 0))), ((0, 0), (0, width)), mode="edge")
    sum_BC = upto_BC[:, width : width + C] - upto_BC[:, :C]
    last_B1 = C - 1 - np.argmax(mask_BC[:, ::-1], axis=1)[:, None]
    column_C = np.arange(C)
    whole_BC = mask_BC & (column_C + width - 1 <= last_B1)
    first_B1 = np.argmin(np.where(whole_BC, sum_BC, np.inf), axis=1)[:, None]
    window_BC = (column_C >= first_B1) & (column_C < first_B1 + width)
    return mask_BC & (window_BC | ~whole_BC.any(axis=1, keepdims=True))


@reward(needs="stats")
def self_certainty(ev: Evidence) -> Array:
    """mean_t [lse(z_t) - mean_v z_tv] = mean_t KL(U || p_t) + ln V, nats (Intuitor)."""
    return certainty_B(ev, ev.stats.self_certainty)


@reward(needs="stats")
def token_entropy(ev: Evidence) -> Array:
    """- mean_t H(p_t), nats (RENT)."""
    return certainty_B(ev, -ev.stats.entropy)


@reward(needs="stats")
def token_entropy_sum(ev: Evidence) -> Array:
    """- sum_t H(p_t), nats (EM-RL, token form)."""
    return certainty_B(ev, -ev.stats.entropy, "sum")


@reward(needs="stats")
def trajectory_entropy(ev: Evidence) -> Array:
    """mean_t ln p(y_t), nats: minus the trajectory entropy of the metrics."""
    return certainty_B(ev, ev.stats.logprob)


@reward(needs="stats")
def trajectory_entropy_sum(ev: Evidence) -> Array:
    """sum_t ln p(y_t), nats (EM-RL, sequence form)."""
    return certainty_B(ev, ev.stats.logprob, "sum")


@reward(needs="stats")
def probability_disparity(ev: Evidence) -> Array:
    """mean_t [p(1)_t - p(2)_t], the largest probability minus the second largest, in [0, 1]."""
    return certainty_B(ev, ev.stats.top1 - ev.stats.top2)


@reward(needs="stats")
def sequence_probability(ev: Evidence) -> Array:
    """P(y) / max over the group of P(y), with P(y) = prod_t p(y_t) (RLSC), in [0, 1].

    Computed as exp(sum_t ln p(y_t) - group max), because P(y) itself underflows float32 from
    sum_t ln p = -87 on. The likeliest response of each group has exactly 1. The factor is common to
    a group, so an advantage divided by the group's standard deviation is that of P(y) itself.
    """
    log_NG = certainty_B(ev, ev.stats.logprob, "sum").reshape(-1, ev.group_size)
    return jnp.exp(log_NG - log_NG.max(axis=1, keepdims=True)).reshape(-1)
