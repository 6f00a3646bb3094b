"""Certainty statistics of every token in one pass over the vocabulary, never holding all logits.

The logits x @ head^T / temperature are computed in tiles, some tokens by some columns of the
vocabulary, and reduced to `Partials`. One tile is alive at a time, in the backward pass too, which
recomputes it. `tiles` has the loops; here are their arguments, their gradients and the mesh.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rlif_jax import sharding
from rlif_jax.batch import TokenStats
from rlif_jax.kernels.token_stats import tiles
from rlif_jax.kernels.token_stats.partials import partials_of, stats_of
from rlif_jax.kernels.token_stats.tiles import Plan, Tile

Array = jax.Array

RULES = sharding.RULES_TRAIN  # what splits the arrays; nothing here depends on the table itself


def tile_for(width: int) -> Tile:
    """The tile for hidden states of this width on what is being compiled for.

    On a CPU by measurement; elsewhere by the bytes that XLA's code for v5e and v5p moves. The
    logits of a tile are at most 64 MiB and the gradient of its rows of the head at most 56, which
    leaves both on the chip of a v5e; with 63 it does not. benchmarks/RESULTS.md has the figures.
    """
    if sharding.platform() == "cpu":
        return Tile(tokens=512, columns=512)
    return Tile(tokens=2048, columns=min(8192, 56 * 2**20 // (4 * width)))


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
    tile: Tile | None = None,
) -> TokenStats:
    """TokenStats of softmax(x @ head^T / temperature) at each target, one tile at a time.

    `x_TD` [..., D], float32 or bfloat16 (matrix products run in its type and accumulate float32),
    finite in every token; `head_VD` [V, D]; `target_T` int [...], inside [0, vocab_size);
    `temperature` positive scalar. Rows of the head from `vocab_size` on (added to make V
    divisible) take no part. `tile` is what a device handles at a time (None: that of the platform);
    it need not divide anything.

    A token without a target has any other value, such as -1: its log-probability is near -3e38,
    which the caller leaves out. Where the cotangents of a token are 0 it adds exactly 0 to every
    gradient.

    Under `jax.set_mesh` each device handles its own tokens and its own columns of the head: the
    shards' partials are merged once at the end. Rows of the batch come first and the columns of a
    row last among the axes of tokens.

    Gradients flow to `x_TD` and `head_VD` from `logprob` and `entropy`: d logprob/dz = onehot - p,
    dH/dz = -p (ln p + H). `self_certainty`, `top1`, `top2` and the temperature carry none.
    """
    mapped = _Mapped.of(x_TD, head_VD, vocab_size, tile)
    temperature = jnp.asarray(temperature, jnp.float32)
    return _token_stats(x_TD, head_VD, jnp.asarray(target_T), temperature, mapped)


@jax.named_scope("token_stats")
def token_stats_at(
    x_TD: Array,
    head_VD: Array,
    target_T: Array | np.ndarray,
    temperatures: tuple[float, ...],
    vocab_size: int | None = None,
    *,
    tile: Tile | None = None,
) -> tuple[TokenStats, ...]:
    """`token_stats` at each of several temperatures from the same logits, without gradients."""
    x_TD, head_VD = lax.stop_gradient((x_TD, head_VD))
    mapped = _Mapped.of(x_TD, head_VD, vocab_size, tile)
    temperature_S = jnp.asarray(temperatures, jnp.float32)
    partials = mapped.partials(x_TD, head_VD, jnp.asarray(target_T), temperature_S)
    return tuple(stats_of(p, mapped.plan.vocab_size) for p in partials)


class _Mapped(NamedTuple):
    """The loops of `tiles`, on every device's own part of arrays of these shapes."""

    plan: Plan
    token_axes: tuple[str | None, ...]
    split: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(
        cls, x_TD: Array, head_VD: Array, vocab_size: int | None, tile: Tile | None
    ) -> "_Mapped":
        """The logical axes of the tokens, and the mesh axes that split each axis."""
        (rows, width), tokens = head_VD.shape, x_TD.shape[:-1]
        middle = (None,) * max(0, len(tokens) - 2)
        axes = (*("batch",)[: len(tokens)], *middle, *("length",)[: len(tokens) - 1])
        sizes = {"vocab": rows, "embed": width}
        sizes |= {axis: size for axis, size in zip(axes, tokens, strict=True) if axis}
        split = sharding.dividing(sizes, RULES)
        plan = Plan(
            tile or tile_for(width),
            rows if vocab_size is None else vocab_size,
            tokens=sum((split[axis] for axis in axes if axis), ()),
            vocab=split["vocab"],
            embed=split["embed"],
        )
        return cls(plan, axes, tuple(split.items()))

    def partials(self, x_TD: Array, head_VD: Array, target_T: Array, temperature_S: Array):
        """`tiles.partials`."""
        f = functools.partial(tiles.partials, plan=self.plan)
        whole, tokens = self._axes(), self.token_axes
        return self._on_mesh(f, (*whole, tokens, (None,)), (tokens,) * temperature_S.size)(
            x_TD, head_VD, target_T, temperature_S
        )

    def gradients(
        self, x_TD: Array, head_VD: Array, target_T: Array, temperature, *of_token: Array
    ):
        """`tiles.gradients`."""
        f = functools.partial(tiles.gradients, plan=self.plan)
        whole, tokens = self._axes(), self.token_axes
        in_axes = (*whole, tokens, (), *(tokens,) * len(of_token))
        return self._on_mesh(f, in_axes, whole)(x_TD, head_VD, target_T, temperature, *of_token)

    def _axes(self) -> tuple[tuple[str | None, ...], ...]:
        """Those of the hidden states and of the head."""
        return (*self.token_axes, None), ("vocab", "embed")

    def _on_mesh(self, f, in_axes, out_axes):
        return sharding.on_shards(f, in_axes, out_axes, dict(self.split))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _token_stats(x_TD, head_VD, target_T, temperature, mapped):
    return _forward(x_TD, head_VD, target_T, temperature, mapped)[0]


def _forward(x_TD, head_VD, target_T, temperature, mapped):
    (partials,) = mapped.partials(x_TD, head_VD, target_T, temperature[None])
    stats = stats_of(partials, mapped.plan.vocab_size)
    # m and ln s0 apart: their sum would round away the probabilities of logits in the thousands.
    log_s0_T = jnp.log(partials.s0)
    return stats, (x_TD, head_VD, target_T, temperature, partials.m, log_s0_T, stats.entropy)


def _backward(mapped, residuals, cotangent):
    gradients = mapped.gradients(*residuals, cotangent.logprob, cotangent.entropy)
    return *gradients, None, None


_token_stats.defvjp(_forward, _backward)
