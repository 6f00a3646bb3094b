"""Tokens of a mini-batch from plain lists, and the policy loss of it in one piece."""

import jax.numpy as jnp
import numpy as np

from rlif_jax.config import Loss
from rlif_jax.loss.aggregation import Denominator, loss_denominator
from rlif_jax.loss.policy import policy_loss
from rlif_jax.loss.tokens import LossTokens

MAX_NEW = 10


def loss_tokens(logprob, advantage, mask=None, segment=None, **others) -> LossTokens:
    """Rows of tokens; `advantage` is one for each token or row, and a row is one completion."""
    logprob = jnp.asarray(logprob)
    shape = logprob.shape
    mask = np.broadcast_to(True if mask is None else np.asarray(mask), shape)
    segment = np.broadcast_to(1 if segment is None else np.asarray(segment), shape)
    count = lambda segment_T, mask_T: np.bincount(segment_T[mask_T], minlength=segment.max() + 1)
    length = [count(*row)[row[0]] for row in zip(segment, mask, strict=True)]
    advantage = jnp.asarray(advantage)
    others = {name: None if x is None else jnp.asarray(x) for name, x in others.items()}
    return LossTokens(
        logprob=logprob,
        entropy=others.pop("entropy", jnp.zeros(shape)),
        advantage=jnp.broadcast_to(advantage if advantage.ndim == 2 else advantage[:, None], shape),
        mask=jnp.asarray(mask),
        segment=jnp.asarray(segment, jnp.int32),
        length=jnp.asarray(length, jnp.float32),
        **others,
    )


def whole(tokens: LossTokens, loss: Loss) -> Denominator:
    """The denominators of a mini-batch that has these tokens and no others."""
    mask, segment = np.asarray(tokens.mask), np.asarray(tokens.segment)
    completions = sum(len(set(row[kept])) for row, kept in zip(segment, mask, strict=True))
    return loss_denominator(mask.sum(), completions, loss, MAX_NEW)


def one_loss(logprob, old, advantage, mask=None, loss=None, ref=None, entropy=None, **others):
    """Loss and metrics of a mini-batch in one piece, with the coefficient of `loss`."""
    loss = loss or Loss()
    if entropy is not None:
        others["entropy"] = entropy
    tokens = loss_tokens(logprob, advantage, mask, old_logprob=old, ref_logprob=ref, **others)
    return policy_loss(tokens, loss, whole(tokens, loss), loss.entropy_coef)
