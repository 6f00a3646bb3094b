"""Greedy, top-k, top-p and min-p, for evaluation; training samples the whole distribution.

The filters apply in transformers' order: temperature, top-k, top-p, min-p, each to what the ones
before it have left. Tokens as likely as the last one kept are kept with it, so that the result does
not hang on the order of a sort. Without a filter nothing is sorted and no mask is made.
"""

import jax
import jax.numpy as jnp

from rlif_jax.batch import TokenStats
from rlif_jax.config import Filters
from rlif_jax.kernels.token_stats.api import stats_from_logits
from rlif_jax.sampler.draw import draw

Array = jax.Array

NO_FILTERS = Filters()


def kept(z_BV: Array, filters: Filters) -> Array:
    """Which entries of each row the filters leave, bool [B, V].

    `z_BV` are logits divided by the temperature, -inf where nothing may be drawn anyway. The
    likeliest token is always kept.
    """
    keep_BV = z_BV > -jnp.inf
    if 0 < filters.top_k < z_BV.shape[1]:
        least_B = jax.lax.top_k(z_BV, filters.top_k)[0][:, -1:]
        keep_BV &= z_BV >= least_B
    if filters.top_p < 1:
        descending_BV = -jnp.sort(jnp.where(keep_BV, -z_BV, jnp.inf), axis=-1)
        mass_BV = jax.nn.softmax(descending_BV, axis=-1)
        before_BV = jnp.cumsum(mass_BV, axis=-1) - mass_BV
        # A token belongs to the nucleus when those before it have not reached top_p together.
        count_B = jnp.maximum(jnp.sum(before_BV < filters.top_p, axis=-1, keepdims=True), 1)
        keep_BV &= z_BV >= jnp.take_along_axis(descending_BV, count_B - 1, axis=-1)
    if filters.min_p > 0:
        keep_BV &= z_BV >= z_BV.max(axis=-1, keepdims=True) + jnp.log(filters.min_p)
    return keep_BV


def choose(
    logits_BV: Array,
    key_B: Array,
    t: Array,
    temperature: float,
    filters: Filters = NO_FILTERS,
    reachable: int | None = None,
    with_stats: bool = True,
) -> tuple[Array, TokenStats | None]:
    """Token t of every row, int32 [B], and the TokenStats [B] of softmax(logits / temperature).

    `t` is int32 [] or [B]. Temperature 0 is greedy: the likeliest token, with the statistics at
    temperature 1. Only the first `reachable` columns may be drawn and count in the statistics.
    These describe the distribution before the filters, so that they mean the same with and without;
    None without `with_stats`.
    """
    z_BV = jnp.asarray(logits_BV, jnp.float32) / (temperature or 1.0)
    columns: int = z_BV.shape[1]
    reachable = reachable or columns
    drawable_BV = z_BV
    if reachable < columns:  # no token id names the other rows
        drawable_BV = jnp.where(jnp.arange(columns) < reachable, z_BV, -jnp.inf)
    if temperature == 0:
        token_B = jnp.argmax(drawable_BV, axis=-1).astype(jnp.int32)
    else:
        if filters != NO_FILTERS:
            drawable_BV = jnp.where(kept(drawable_BV, filters), drawable_BV, -jnp.inf)
        token_B = draw(drawable_BV, key_B, t)
    return token_B, stats_from_logits(z_BV, token_B, reachable) if with_stats else None
