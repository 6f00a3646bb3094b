"""From a number per token to one per mini-batch, in pieces that add up.

A loss is a sum over pieces (micro-batches, devices): every piece divides by the one denominator of
the whole mini-batch, so that losses, gradients and metrics of pieces add up to those of the whole.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rlif_jax.batch import Array
from rlif_jax.config import Loss
from rlif_jax.loss.tokens import LossTokens


class Denominator(NamedTuple):
    """What the sums over a whole mini-batch are divided by: `loss` and `tokens`, float32 []."""

    loss: Array
    tokens: Array


def loss_denominator(
    tokens: Array | int, completions: Array | int, loss: Loss, max_new_tokens: int
) -> Denominator:
    """The denominators of a whole mini-batch of so many completions with so many tokens in all.

    The loss is divided by the tokens (token_mean), by the completions (sequence_mean: the mean of
    their means), or by completions * max_new_tokens (dr_grpo: a constant, so no bias by length);
    metrics are always divided by the tokens. Both numbers count what the loss trains on, and a
    mini-batch without any has a loss of 0.
    """
    tokens, completions = (
        jnp.maximum(jnp.asarray(n, jnp.float32), 1.0) for n in (tokens, completions)
    )
    divisor = {
        "token_mean": tokens,
        "sequence_mean": completions,
        "dr_grpo": completions * max_new_tokens,
    }
    return Denominator(loss=divisor[loss.aggregation], tokens=tokens)


def token_weights(tokens: LossTokens, loss: Loss) -> Array:
    """What each token counts, float32 [R, T]: 1; under sequence_mean 1 / its completion's length.

    `tokens` are `within_mask`.
    """
    if loss.aggregation != "sequence_mean":
        return jnp.ones(tokens.mask.shape, jnp.float32)
    return 1.0 / tokens.length


def trained_completions(truncated_B: Array, loss: Loss) -> Array:
    """Which completions the loss trains on, bool [B]: all, or those with an end of sequence.

    `loss.overlong_filter` leaves out the truncated ones, from the loss and from its denominator
    (DAPO's overlong filtering, arXiv 2503.14476); their rewards still count in their groups.
    """
    return ~truncated_B if loss.overlong_filter else jnp.ones_like(truncated_B)
