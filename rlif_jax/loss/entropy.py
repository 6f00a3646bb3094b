"""The coefficient of the entropy bonus, fixed or steered towards a target."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Array, TokenStats
from rlif_jax.config import Loss


class EntropyCoefficient(NamedTuple):
    """`applied` in the loss of this step, and `following`: the state for the next; float32 []."""

    applied: Array
    following: Array


def entropy_coefficient(
    state: Array | float, entropy: Array | float, loss: Loss
) -> EntropyCoefficient:
    """The bonus's coefficient in this step and the state of the next, from the state of this one.

    `entropy` is the mean over the step's tokens before its updates, in nats. Without
    `loss.entropy_target` the coefficient is `loss.entropy_coef`. With one, the state rises by
    `loss.entropy_step` where entropy is below it and falls by as much where it is above, never
    below 0, and the bonus is applied only where entropy is not above it (arXiv 2505.22312, section
    4: alpha_k = c_k [e_k <= target], c_0 = loss.entropy_coef).
    """
    state = jnp.asarray(state, jnp.float32)
    if loss.entropy_target is None:
        return EntropyCoefficient(*[jnp.float32(loss.entropy_coef)] * 2)
    missing = loss.entropy_target - jnp.asarray(entropy, jnp.float32)
    return EntropyCoefficient(
        applied=jnp.where(missing >= 0, state, 0.0),
        following=jnp.maximum(state + loss.entropy_step * jnp.sign(missing), 0.0),
    )


def mean_entropy(stats: TokenStats, mask_BC: Array) -> float:
    """Mean entropy of the tokens of a step in nats, reduced on the host in float64."""
    entropy_BC, mask_BC = np.asarray(stats.entropy, np.float64), np.asarray(mask_BC)
    return float(entropy_BC.sum(where=mask_BC) / max(mask_BC.sum(), 1))
