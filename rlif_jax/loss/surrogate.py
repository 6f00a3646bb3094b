"""The policy-gradient surrogate of each token, to be minimised."""

import jax.numpy as jnp

from rlif_jax.batch import Array
from rlif_jax.config import Loss

MAX_LOG_RATIO = 20.0
"""exp of it is finite and far outside any clip range."""


def likelihood_ratio(log_ratio_BC: Array) -> Array:
    """Policy over sampling policy, exp(ln p - ln p_old), finite whatever the log ratio."""
    return jnp.exp(jnp.clip(log_ratio_BC, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def clipped_surrogate(
    ratio_BC: Array, advantage_B1: Array, loss: Loss
) -> tuple[Array, Array, Array]:
    """PPO's clipped surrogate, and where clip and dual clip took effect (bool).

    max(-A r, -A clip(r, 1 - low, 1 + high)) (arXiv 1707.06347); for A < 0 at most -A c with the
    dual clip c (arXiv 1912.09729), as in verl's compute_policy_loss.
    """
    plain_BC = -advantage_B1 * ratio_BC
    bounded_BC = -advantage_B1 * jnp.clip(ratio_BC, 1 - loss.clip_low, 1 + loss.clip_high)
    clipped_BC = bounded_BC > plain_BC
    surrogate_BC = jnp.maximum(plain_BC, bounded_BC)
    if loss.dual_clip is None:
        return surrogate_BC, clipped_BC, jnp.zeros_like(clipped_BC)
    limit_B1 = -advantage_B1 * loss.dual_clip
    dual_BC = (advantage_B1 < 0) & (surrogate_BC > limit_B1)
    return jnp.where(dual_BC, limit_B1, surrogate_BC), clipped_BC, dual_BC
