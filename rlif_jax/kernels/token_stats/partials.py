"""What a set of vocabulary columns adds to a token's statistics, and how two sets merge.

With z = logits / temperature, columns contribute a few numbers a token

    m = max z           s0 = sum e^(z-m)              s1 = sum (z-m) e^(z-m)
    total = sum z       second = second largest z     chosen = z[target]

and those of two disjoint sets merge associatively into those of their union.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlif_jax.batch import TokenStats

Array = jax.Array

# Stands in for minus infinity: differences of it stay finite, so an empty tile never gives NaN.
LOWEST = float(jnp.finfo(jnp.float32).min)


class Partials(NamedTuple):
    """What a set of vocabulary columns adds to a token's statistics, float32, of one shape."""

    m: Array
    s0: Array
    s1: Array
    total: Array
    second: Array
    chosen: Array


def merge(a: Partials, b: Partials) -> Partials:
    """Partials of the union of two disjoint sets of columns; associative, `empty` is neutral."""
    m = jnp.maximum(a.m, b.m)
    shift_a, shift_b = a.m - m, b.m - m
    scale_a, scale_b = jnp.exp(shift_a), jnp.exp(shift_b)
    return Partials(
        m=m,
        s0=scale_a * a.s0 + scale_b * b.s0,
        s1=scale_a * (a.s1 + shift_a * a.s0) + scale_b * (b.s1 + shift_b * b.s0),
        total=a.total + b.total,
        # The loser of the two maxima may be the runner-up; equal maxima give second == m.
        second=jnp.maximum(jnp.minimum(a.m, b.m), jnp.maximum(a.second, b.second)),
        chosen=jnp.maximum(a.chosen, b.chosen),
    )


def empty(shape: tuple[int, ...]) -> Partials:
    """Partials of no columns at all, for tokens of this shape."""
    zero, lowest = jnp.zeros(shape, jnp.float32), jnp.full(shape, LOWEST, jnp.float32)
    return Partials(m=lowest, s0=zero, s1=zero, total=zero, second=lowest, chosen=lowest)


def partials_of(z: Array, target: Array, valid: Array | None = None) -> Partials:
    """Partials of the columns in the last axis of `z`.

    `z` float32 [..., K]; `target` int [...] the column of the token within K, outside [0, K) if it
    lies elsewhere; `valid` bool, broadcast to `z`, False for columns to leave out.
    """
    # Of z itself only the masked copy is used, and all that needs the maximum is a sum or maximum
    # of one shape: XLA for accelerators then passes over the tile twice, once beside the product.
    keep = (lambda t: t) if valid is None else (lambda t: jnp.where(valid, t, 0.0))
    if valid is not None:
        z = jnp.where(valid, z, LOWEST)
    m = z.max(-1)
    shifted = z - m[..., None]
    weight = keep(jnp.exp(shifted))
    # Two max passes instead of a sort: the runner-up is m itself where the maximum occurs twice.
    at_max = z == m[..., None]
    below = jnp.where(at_max, LOWEST, z).max(-1)
    at_target = jnp.arange(z.shape[-1]) == target[..., None]
    return Partials(
        m=m,
        s0=weight.sum(-1),
        s1=(shifted * weight).sum(-1),
        total=keep(z).sum(-1),
        second=jnp.where(jnp.where(at_max, 1.0, 0.0).sum(-1) > 1, m, below),
        chosen=jnp.where(at_target, z, LOWEST).max(-1),
    )


def stats_of(p: Partials, columns: int) -> TokenStats:
    """TokenStats from the partials of the whole vocabulary of `columns` tokens."""
    log_s0 = jnp.log(p.s0)
    return TokenStats(
        logprob=(p.chosen - p.m) - log_s0,
        entropy=log_s0 - p.s1 / p.s0,
        self_certainty=(p.m - p.total / columns) + log_s0,
        top1=1.0 / p.s0,
        top2=jnp.exp(p.second - p.m) / p.s0,
    )
