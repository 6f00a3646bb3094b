"""Certainty of sampled tokens under any parameters, in the trainer's numerics."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Array, Rollout, TokenStats
from rlif_jax.kernels.token_stats import token_stats


def completion_stats(
    model: Any,
    tokens_BT: Array,
    position_BT: Array,
    mask_BT: Array,
    completion_length: int,
    temperature: float,
) -> TokenStats:
    """TokenStats [B, C] of the last C columns, the one place where the shift by one is made.

    The hidden state of column P + t - 1 describes completion token t, so the statistics of columns
    [P, T) come from the hidden states of columns [P - 1, T - 1).
    """
    T, C = tokens_BT.shape[1], completion_length
    x_BTD, _ = model(tokens_BT, position_BT, mask_BT)
    x_BCD = sharding.constrain(x_BTD[:, T - C - 1 : T - 1], "batch", "length", "hidden")
    return token_stats(x_BCD, model.head_VD, tokens_BT[:, T - C :], temperature)


def sequences(rollout: Rollout) -> tuple[Array, Array, Array]:
    """Prompt and completion joined: tokens [B, T], positions [B, T] counting real tokens, mask."""
    tokens_BT = jnp.concatenate([rollout.prompt_tokens, rollout.tokens], axis=1)
    mask_BT = jnp.concatenate([rollout.prompt_mask, rollout.mask], axis=1)
    position_BT = jnp.maximum(jnp.cumsum(mask_BT, axis=1) - 1, 0)
    return tokens_BT, position_BT, mask_BT


def make_score(graphdef: Any, *, temperature: float, micro_batches: int = 1):
    """Build `score(params, rollout) -> TokenStats` [B, C], float32, no gradient.

    The rows are scored in `micro_batches` pieces, one after the other, to bound memory.
    """

    def score(params, rollout: Rollout) -> TokenStats:
        model = nnx.merge(graphdef, params)
        C = rollout.tokens.shape[1]

        def piece(rows):
            return completion_stats(model, *rows, C, temperature)

        stats = jax.lax.map(piece, split_rows(sequences(rollout), micro_batches))
        return join_rows(stats)

    return jax.jit(score)


def split_rows(tree: Any, pieces: int) -> Any:
    """[B, ...] -> [pieces, B / pieces, ...], piece i holding rows i, i + pieces, ...

    Strided, so that each piece keeps the rows where the mesh has put them.
    """

    def split(x):
        return jnp.swapaxes(x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]), 0, 1)

    return jax.tree.map(split, tree)


def join_rows(tree: Any) -> Any:
    """The inverse of `split_rows`."""

    def join(x):
        return jnp.swapaxes(x, 0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    return jax.tree.map(join, tree)
