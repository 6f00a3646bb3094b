"""From a number per token to one per mini-batch, in pieces that add up.

A loss is a sum over pieces (micro-batches, devices): every piece divides by the one denominator of
the whole mini-batch, so that losses, gradients and metrics of pieces add up to those of the whole.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rlif_jax.batch import Array
from rlif_jax.config import Loss


class Denominator(NamedTuple):
    """What the sums over a whole mini-batch are divided by: `loss` and `tokens`, float32 []."""

    loss: Array
    tokens: Array


def loss_denominator(mask_BC: Array, loss: Loss, max_new_tokens: int) -> Denominator:
    """The denominators of a whole mini-batch, from the completion mask [B, C] of all its rows.

    The loss is divided by the tokens (token_mean), by the rows (sequence_mean: the mean of row
    means), or by rows * max_new_tokens (dr_grpo: a constant, so no bias by length); metrics are
    always divided by the tokens.
    """
    rows = mask_BC.shape[0]
    tokens = jnp.maximum(mask_BC.sum(), 1).astype(jnp.float32)
    constant = {"sequence_mean": rows, "dr_grpo": rows * max_new_tokens}
    divisor = tokens if loss.aggregation == "token_mean" else constant[loss.aggregation]
    return Denominator(loss=jnp.asarray(divisor, jnp.float32), tokens=tokens)


def token_weights(mask_BC: Array, loss: Loss) -> Array:
    """What each token counts, float32 [B, C]: 1; under sequence_mean 1 / tokens of the row."""
    if loss.aggregation != "sequence_mean":
        return jnp.ones(mask_BC.shape, jnp.float32)
    length_B1 = jnp.maximum(mask_BC.sum(axis=1, keepdims=True), 1)
    return jnp.broadcast_to(1.0 / length_B1.astype(jnp.float32), mask_BC.shape)
