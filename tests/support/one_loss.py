"""The policy loss of a mini-batch in one piece, from plain lists."""

import jax.numpy as jnp

from rlif_jax.config import Loss
from rlif_jax.loss.aggregation import loss_denominator
from rlif_jax.loss.policy import policy_loss

MAX_NEW = 10


def one_loss(logprob, old, advantage, mask=None, loss=None, ref=None, entropy=None):
    """Loss and metrics of a mini-batch in one piece."""
    loss = loss or Loss()
    logprob = jnp.asarray(logprob, jnp.float32)
    mask = jnp.ones(logprob.shape, bool) if mask is None else jnp.asarray(mask)
    return policy_loss(
        logprob,
        jnp.zeros_like(logprob) if entropy is None else jnp.asarray(entropy, jnp.float32),
        jnp.asarray(old, jnp.float32),
        None if ref is None else jnp.asarray(ref, jnp.float32),
        jnp.asarray(advantage, jnp.float32),
        mask,
        loss,
        loss_denominator(mask, loss, MAX_NEW),
    )
