"""The loops over tiles of logits: a device's own tokens by its own columns of the vocabulary.

The outer loop takes `columns` rows of the head, the inner one takes the device's tokens in blocks.
So the head is read once and a tile of its gradient is complete after one turn; the hidden states
and their gradient are read and written once for each of the few tiles of the head, and logits of
one block stay on the chip. All arrays are local: `api` calls these functions on every device.

Letters: T the device's tokens, in M blocks of B; R the device's rows of the head, in tiles of K;
E the device's share of D.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlif_jax.kernels.precision import head_einsum
from rlif_jax.kernels.token_stats.partials import Partials, empty, merge, partials_of

Array = jax.Array

_LANES = 128  # XLA for accelerators pads the last axis of an array to a multiple of this


class Tile(NamedTuple):
    """How many tokens, by how many columns of the vocabulary, a device handles at a time."""

    tokens: int
    columns: int


class Plan(NamedTuple):
    """How the work is divided: the tile, the reachable vocabulary, and axes of the mesh.

    `tokens`, `vocab` and `embed` are the mesh axes over which the hidden states' tokens and the
    head's two axes are split, () for an axis in one piece.
    """

    tile: Tile
    vocab_size: int
    tokens: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()


class _Columns:
    """A device's `rows` rows of the head as `count` tiles of `width`."""

    def __init__(self, rows: int, plan: Plan):
        self.rows = rows
        even = math.ceil(rows / math.ceil(rows / plan.tile.columns))  # overlaps least at the end
        multiple = min(_LANES, plan.tile.columns)
        self.width = min(rows, multiple * math.ceil(even / multiple))
        self.count = math.ceil(rows / self.width)
        self._first = lax.axis_index(plan.vocab) * rows if plan.vocab else 0
        shards = lax.axis_size(plan.vocab) if plan.vocab else 1
        self._all_count = plan.vocab_size == shards * rows and rows % self.width == 0
        self._vocab_size = plan.vocab_size

    def start(self, i: Array) -> Array:
        """First row of tile i; the last tile moves back to end with the rows, over rows seen."""
        return jnp.minimum(i * self.width, self.rows - self.width)

    def first_id(self, i: Array) -> Array:
        """The token id of the first column of tile i."""
        return self._first + self.start(i)

    def valid(self, i: Array) -> Array | None:
        """Columns of tile i that count, bool [K]: reachable, not seen before. None if all do."""
        if self._all_count:
            return None
        column_K = jnp.arange(self.width)
        fresh_K = self.start(i) + column_K >= i * self.width
        return fresh_K & (self.first_id(i) + column_K < self._vocab_size)

    def head(self, head_RE: Array, i: Array, plan: Plan, dtype) -> Array:
        """The rows of tile i, [K, D]; an axis D that is split is gathered tile by tile."""
        tile_KE = lax.dynamic_slice_in_dim(head_RE, self.start(i), self.width).astype(dtype)
        if not plan.embed:
            return tile_KE
        return lax.all_gather(tile_KE, plan.embed, axis=1, tiled=True)


def partials(
    x_TD: Array, head_RE: Array, target_T: Array, temperature_S: Array, plan: Plan
) -> tuple[Partials, ...]:
    """Partials of the whole vocabulary, of the shape of `target_T`, at each temperature."""
    columns = _Columns(head_RE.shape[0], plan)
    x_MBD, target_MB = _blocks(x_TD, target_T.ndim, plan), _blocks(target_T, target_T.ndim, plan)

    def tile(seen, i):
        tile_KD = columns.head(head_RE, i, plan, x_TD.dtype)

        def block(_, of_block):
            x_BD, target_B, seen = of_block
            z_BK = head_einsum("BD,KD->BK", x_BD, tile_KD)
            column_B = target_B - columns.first_id(i)
            new = [partials_of(z_BK / t, column_B, columns.valid(i)) for t in temperature_S]
            return None, tuple(map(merge, seen, new))

        _, seen = lax.scan(block, None, (x_MBD, target_MB, seen))
        return seen, None

    initial = tuple(empty(target_MB.shape) for _ in temperature_S)
    found, _ = lax.scan(tile, initial, jnp.arange(columns.count))
    if plan.vocab:
        shards = [lax.all_gather(one, plan.vocab) for one in found]
        found = tuple(functools.reduce(merge, _unstacked(one)) for one in shards)
    return jax.tree.map(lambda a_MB: _unblocked(a_MB, target_T.shape), found)


def gradients(
    x_TD: Array,
    head_RE: Array,
    target_T: Array,
    temperature: Array,
    m_T: Array,
    log_s0_T: Array,
    entropy_T: Array,
    d_logprob_T: Array,
    d_entropy_T: Array,
    plan: Plan,
) -> tuple[Array, Array]:
    """Gradients by hidden states and head, in their shapes and types, summed in float32."""
    columns = _Columns(head_RE.shape[0], plan)
    by_token = (x_TD, target_T, m_T, log_s0_T, entropy_T, d_logprob_T, d_entropy_T)
    blocks = tuple(_blocks(a, target_T.ndim, plan) for a in by_token)
    D = x_TD.shape[-1]

    def tile(carry, i):
        dx_MBD, dhead_RE = carry
        tile_KD, valid_K = columns.head(head_RE, i, plan, x_TD.dtype), columns.valid(i)
        id_K = columns.first_id(i) + jnp.arange(columns.width)

        def block(carry, scanned):
            dx_MBD, dtile_KD = carry
            j, (x_BD, *of_token) = scanned
            target, m, log_s0, entropy, d_logprob, d_entropy = (a_B[:, None] for a_B in of_token)
            z_BK = head_einsum("BD,KD->BK", x_BD, tile_KD) / temperature
            logp_BK = (z_BK - m) - log_s0
            dz_BK = -jnp.exp(logp_BK) * (d_logprob + d_entropy * (logp_BK + entropy))
            dz_BK += jnp.where(id_K == target, d_logprob, 0.0)
            if valid_K is not None:
                dz_BK = jnp.where(valid_K, dz_BK, 0.0)
            dz_BK = (dz_BK / temperature).astype(x_TD.dtype)
            dx_BD = dx_MBD[j] + head_einsum("BK,KD->BD", dz_BK, tile_KD)
            dtile_KD += head_einsum("BK,BD->KD", dz_BK, x_BD)
            return (lax.dynamic_update_index_in_dim(dx_MBD, dx_BD, j, 0), dtile_KD), None

        dtile_KD = jnp.zeros((columns.width, D), jnp.float32)
        scanned = (jnp.arange(dx_MBD.shape[0]), blocks)
        (dx_MBD, dtile_KD), _ = lax.scan(block, (dx_MBD, dtile_KD), scanned)
        dtile_KE = _own_share(dtile_KD, plan)
        return (
            dx_MBD,
            lax.dynamic_update_slice_in_dim(dhead_RE, dtile_KE, columns.start(i), 0),
        ), None

    initial = (jnp.zeros(blocks[0].shape, jnp.float32), jnp.zeros(head_RE.shape, jnp.float32))
    # From the last tile back: where it overlaps the one before, that one writes later and counts.
    (dx_MBD, dhead_RE), _ = lax.scan(tile, initial, jnp.arange(columns.count), reverse=True)
    dx_TD = _total(_unblocked(dx_MBD, x_TD.shape), plan.vocab)
    elsewhere = tuple(axis for axis in plan.tokens if axis not in plan.embed)
    dhead_RE = _total(dhead_RE, elsewhere)
    return dx_TD.astype(x_TD.dtype), dhead_RE.astype(head_RE.dtype)


def _own_share(dtile_KD: Array, plan: Plan) -> Array:
    """The device's share of D of the gradient of a tile, summed over the mesh axes that split D.

    Axes that split D split the tokens too, or hold the same tokens: then nothing is summed.
    """
    if not plan.embed:
        return dtile_KD
    if set(plan.embed) <= set(plan.tokens):
        return lax.psum_scatter(dtile_KD, plan.embed, scatter_dimension=1, tiled=True)
    width = dtile_KD.shape[1] // lax.axis_size(plan.embed)
    return lax.dynamic_slice_in_dim(dtile_KD, lax.axis_index(plan.embed) * width, width, axis=1)


def _total(a: Array, axes: tuple[str, ...]) -> Array:
    return lax.psum(a, axes) if axes else a


def _blocks(a_T: Array, token_axes: int, plan: Plan) -> Array:
    """[..., *rest] of `token_axes` axes of tokens -> [M, B, *rest], filled up with zeros."""
    tokens, rest = math.prod(a_T.shape[:token_axes]), a_T.shape[token_axes:]
    M = math.ceil(tokens / plan.tile.tokens)
    B = math.ceil(tokens / M)
    a_TR = a_T.reshape(tokens, *rest)
    padding = ((0, M * B - tokens), *((0, 0) for _ in rest))
    return jnp.pad(a_TR, padding).reshape(M, B, *rest)


def _unblocked(a_MB: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_blocks`."""
    flat = a_MB.reshape(-1, *a_MB.shape[2:])
    return flat[: math.prod(shape) // math.prod(flat.shape[1:])].reshape(shape)


def _unstacked(tree: Partials) -> list[Partials]:
    return [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(tree.m.shape[0])]
