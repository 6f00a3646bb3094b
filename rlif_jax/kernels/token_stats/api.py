"""Certainty statistics of every token in one pass over the vocabulary, never holding all logits.

With z = x @ head^T / temperature, a tile of the vocabulary contributes a few numbers a token

    m = max z           s0 = sum e^(z-m)              s1 = sum (z-m) e^(z-m)
    total = sum z       second = second largest z     chosen = z[target]

and those of two tiles merge associatively into those of their union, so tiles may be visited in any
order and the shards of a tensor-parallel head merge in the same way. One [tokens, chunk] tile of
logits is alive at a time, in the backward pass too, which recomputes it.

The vocabulary is tiled and the tokens are not: each row of the head is then read once, its gradient
is complete after one visit, and a tile that stays in cache beats a matmul that writes all logits.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rlif_jax import sharding
from rlif_jax.batch import TokenStats
from rlif_jax.kernels.precision import head_einsum

Array = jax.Array

CHUNK = 512  # vocabulary columns that a device handles at a time

# Stands in for minus infinity: differences of it stay finite, so an empty tile never gives NaN.
_LOWEST = float(jnp.finfo(jnp.float32).min)


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
    zero, lowest = jnp.zeros(shape, jnp.float32), jnp.full(shape, _LOWEST, jnp.float32)
    return Partials(m=lowest, s0=zero, s1=zero, total=zero, second=lowest, chosen=lowest)


def partials_of(z: Array, target: Array, valid: Array | None = None) -> Partials:
    """Partials of the columns in the last axis of `z`.

    `z` float32 [..., K]; `target` int [...] the column of the token within K, outside [0, K) if it
    lies elsewhere; `valid` bool, broadcast to `z`, False for columns to leave out.
    """
    columns = z.shape[-1]
    keep = (lambda t: t) if valid is None else (lambda t: jnp.where(valid, t, 0.0))
    total = keep(z).sum(-1)
    if valid is not None:
        z = jnp.where(valid, z, _LOWEST)
    m = z.max(-1)
    shifted = z - m[..., None]
    weight = keep(jnp.exp(shifted))
    # Two max passes instead of a sort: the runner-up is m itself where the maximum occurs twice.
    at_max = z == m[..., None]
    below = jnp.where(at_max, _LOWEST, z).max(-1)
    column = jnp.clip(target, 0, columns - 1)[..., None]
    chosen = jnp.take_along_axis(z, column, axis=-1)[..., 0]
    return Partials(
        m=m,
        s0=weight.sum(-1),
        s1=(shifted * weight).sum(-1),
        total=total,
        second=jnp.where(at_max.sum(-1) > 1, m, below),
        chosen=jnp.where((target >= 0) & (target < columns), chosen, _LOWEST),
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


@jax.named_scope("token_stats")
def stats_from_logits(z_BV: Array, target_B: Array, vocab_size: int | None = None) -> TokenStats:
    """TokenStats of logits that are already computed, as in a decoding step.

    `z_BV` [..., V] are logits divided by the temperature; `target_B` int [...], inside
    [0, vocab_size); columns from `vocab_size` on are left out. Differentiable by ordinary rules.
    """
    columns: int = z_BV.shape[-1]
    vocab_size = vocab_size or columns
    valid = None if vocab_size == columns else jnp.arange(columns) < vocab_size
    return stats_of(partials_of(z_BV.astype(jnp.float32), target_B, valid), vocab_size)


@jax.named_scope("token_stats")
def token_stats(
    x_TD: Array,
    head_VD: Array,
    target_T: Array | np.ndarray,
    temperature: float | Array,
    vocab_size: int | None = None,
    *,
    chunk: int = CHUNK,
) -> TokenStats:
    """TokenStats of softmax(x @ head^T / temperature) at each target, in memory tokens * chunk.

    `x_TD` [..., D], float32 or bfloat16 (matrix products run in its type and accumulate float32);
    `head_VD` [V, D]; `target_T` int [...], inside [0, vocab_size), any other value gives a
    log-probability near -3e38; `temperature` positive scalar. Rows of the head from `vocab_size` on
    (added to make V divisible) take no part. `chunk` is the number of vocabulary columns that a
    device handles at a time; it need not divide V.

    Under `jax.set_mesh` a head split over the vocabulary stays split: each shard reduces its own
    columns and the shards' partials are merged once at the end.

    Gradients flow to `x_TD` and `head_VD` from `logprob` and `entropy`: d logprob/dz = onehot - p,
    dH/dz = -p (ln p + H). `self_certainty`, `top1`, `top2` and the temperature carry none.
    """
    V: int = head_VD.shape[0] if vocab_size is None else vocab_size
    tiling = _tiling(head_VD.shape[0], V, chunk)
    x_TD = sharding.constrain(x_TD, *_axes_of(x_TD))
    return _token_stats(x_TD, head_VD, target_T, jnp.asarray(temperature, jnp.float32), tiling)


@jax.named_scope("token_stats")
def token_stats_at(
    x_TD: Array,
    head_VD: Array,
    target_T: Array | np.ndarray,
    temperatures: tuple[float, ...],
    vocab_size: int | None = None,
    *,
    chunk: int = CHUNK,
) -> tuple[TokenStats, ...]:
    """`token_stats` at each of several temperatures from the same logits, without gradients."""
    V: int = head_VD.shape[0] if vocab_size is None else vocab_size
    tiling = _tiling(head_VD.shape[0], V, chunk)
    x_TD, head_VD = lax.stop_gradient((x_TD, head_VD))
    x_TD = sharding.constrain(x_TD, *_axes_of(x_TD))
    partials = _partials(x_TD, head_VD, target_T, temperatures, tiling)
    return tuple(stats_of(p, V) for p in partials)


class _Tiling(NamedTuple):
    """The V rows of the head as `shards` runs of `rows`, each in `count` tiles of `width`.

    Arrays of a tile have an axis S over shards, which a head in one piece lacks: with an S of one,
    XLA for CPUs fuses the reductions of a tile worse (1.4 times the time).
    """

    shards: int
    rows: int
    width: int
    count: int
    vocab_size: int

    @property
    def axis(self) -> str:
        """The letter of the shard axis in an einsum, "" without one."""
        return "s" if self.shards > 1 else ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shard axis, (S,), or () without one."""
        return (self.shards,) if self.shards > 1 else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the shard axis for `sharding.constrain`."""
        return ("vocab",) if self.shards > 1 else ()

    def start(self, i: Array) -> Array:
        """First row of tile i; the last tile moves back to end with the shard, over rows seen."""
        return jnp.minimum(i * self.width, self.rows - self.width)

    def ids(self, i: Array) -> Array:
        """Token ids of tile i, [S, K]."""
        shard_S1 = (jnp.arange(self.shards) * self.rows).reshape(*self.shape, 1)
        return shard_S1 + self.start(i) + jnp.arange(self.width)

    def valid(self, i: Array) -> Array | None:
        """Columns of tile i that count, bool [S, K]: reachable, not seen before. None if all do."""
        if self.vocab_size == self.shards * self.rows and self.rows % self.width == 0:
            return None
        fresh_K = self.start(i) + jnp.arange(self.width) >= i * self.width
        return fresh_K & (self.ids(i) < self.vocab_size)

    def widen(self, a_T: Array) -> Array:
        """[...] -> [..., 1, 1], to meet [..., S, K]."""
        return a_T.reshape(a_T.shape + (1,) * (len(self.shape) + 1))


def _tiling(vocabulary: int, vocab_size: int, chunk: int) -> _Tiling:
    shards = sharding.parts_of("vocab", vocabulary)
    rows = vocabulary // shards
    count = math.ceil(rows / chunk)
    width = math.ceil(rows / count)  # even tiles overlap least at the end
    return _Tiling(shards, rows, width, math.ceil(rows / width), vocab_size)


def _head_tile(head_VD: Array, i: Array, tiling: _Tiling, dtype) -> Array:
    """Rows of tile i of every shard, [S, K, D]; an fsdp split of D is gathered tile by tile."""
    head_SRD = head_VD.reshape(*tiling.shape, tiling.rows, -1)
    head_SRD = sharding.constrain(head_SRD, *tiling.names, None, "embed")
    tile_SKD = lax.dynamic_slice_in_dim(head_SRD, tiling.start(i), tiling.width, axis=-2)
    return sharding.constrain(tile_SKD.astype(dtype), *tiling.names, None, None)


def _logits(x_TD: Array, tile_SKD: Array, s: str) -> Array:
    """Logits of one tile, float32 [..., S, K]."""
    return head_einsum(f"...d,{s}kd->...{s}k", x_TD, tile_SKD)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _token_stats(x_TD, head_VD, target_T, temperature, tiling):
    return _forward(x_TD, head_VD, target_T, temperature, tiling)[0]


def _partials(x_TD, head_VD, target_T, temperatures, tiling):
    """Partials of the whole vocabulary at each temperature, [...]."""
    target_TS = target_T.reshape(target_T.shape + (1,) * len(tiling.shape))

    def step(partials, i):
        tile_SKD = _head_tile(head_VD, i, tiling, x_TD.dtype)
        z_TSK = _logits(x_TD, tile_SKD, tiling.axis)
        column_TS = target_TS - tiling.ids(i)[..., 0]
        tiles = (partials_of(z_TSK / t, column_TS, tiling.valid(i)) for t in temperatures)
        return tuple(map(merge, partials, tiles)), None

    initial = tuple(empty(target_T.shape + tiling.shape) for _ in temperatures)
    partials, _ = lax.scan(step, initial, jnp.arange(tiling.count))
    if tiling.shape:
        shards = [jax.tree.map(lambda a, s=s: a[..., s], partials) for s in range(tiling.shards)]
        partials = tuple(functools.reduce(merge, parts) for parts in zip(*shards, strict=True))
    return partials


def _forward(x_TD, head_VD, target_T, temperature, tiling):
    (partials,) = _partials(x_TD, head_VD, target_T, (temperature,), tiling)
    stats = stats_of(partials, tiling.vocab_size)
    # m and ln s0 apart: their sum would round away the probabilities of logits in the thousands.
    log_s0_T = jnp.log(partials.s0)
    return stats, (x_TD, head_VD, target_T, temperature, partials.m, log_s0_T, stats.entropy)


def _backward(tiling, residuals, cotangent):
    x_TD, head_VD, target_T, temperature, m_T, log_s0_T, entropy_T = residuals
    s, widen = tiling.axis, tiling.widen
    d_logprob, d_entropy = widen(cotangent.logprob), widen(cotangent.entropy)

    def step(carry, i):
        dx_STD, dhead_SRD = carry
        tile_SKD = _head_tile(head_VD, i, tiling, x_TD.dtype)
        z_TSK = _logits(x_TD, tile_SKD, s) / temperature
        logp_TSK = (z_TSK - widen(m_T)) - widen(log_s0_T)
        dz_TSK = -jnp.exp(logp_TSK) * (d_logprob + d_entropy * (logp_TSK + widen(entropy_T)))
        dz_TSK += jnp.where(tiling.ids(i) == widen(target_T), d_logprob, 0.0)
        valid_SK = tiling.valid(i)
        if valid_SK is not None:
            dz_TSK = jnp.where(valid_SK, dz_TSK, 0.0)
        dz_TSK = (dz_TSK / temperature).astype(x_TD.dtype)
        # Each shard sums over its own columns; the sum over shards waits until after the loop.
        dx_STD += head_einsum(f"...{s}k,{s}kd->{s}...d", dz_TSK, tile_SKD)
        dtile_SKD = head_einsum(f"...{s}k,...d->{s}kd", dz_TSK, x_TD)
        start = tiling.start(i)
        dtile_SKD += lax.dynamic_slice_in_dim(dhead_SRD, start, tiling.width, axis=-2)
        dhead_SRD = lax.dynamic_update_slice_in_dim(dhead_SRD, dtile_SKD, start, axis=-2)
        return (dx_STD, dhead_SRD), None

    dx_STD = jnp.zeros(tiling.shape + x_TD.shape, jnp.float32)
    dhead_SRD = jnp.zeros((*tiling.shape, tiling.rows, x_TD.shape[-1]), jnp.float32)
    dx_STD = sharding.constrain(dx_STD, *tiling.names, *_axes_of(x_TD))
    dhead_SRD = sharding.constrain(dhead_SRD, *tiling.names, None, "embed")
    (dx_STD, dhead_SRD), _ = lax.scan(step, (dx_STD, dhead_SRD), jnp.arange(tiling.count))
    dx_TD = (dx_STD.sum(0) if tiling.shape else dx_STD).astype(x_TD.dtype)
    return dx_TD, dhead_SRD.reshape(head_VD.shape).astype(head_VD.dtype), None, None


def _axes_of(x_TD: Array) -> tuple[str | None, ...]:
    """Names of the axes of a hidden state; rows of the batch come first."""
    return (*("batch", "length")[: x_TD.ndim - 1], *(None,) * max(0, x_TD.ndim - 3), "hidden")


_token_stats.defvjp(_forward, _backward)
