"""Estimates of KL(policy || reference) from sampled tokens, by name."""

import jax.numpy as jnp
from jax import lax

from rlif_jax.batch import Array

MAX_LOG_RATIO = 20.0  # nats, as in verl
MAX_K3 = 10.0  # nats a token, as in verl


def kl_estimate(log_ratio: Array, estimator: str) -> Array:
    """KL(policy || reference) of sampled tokens from ln p - ln p_ref, nats, elementwise.

    `estimator` names one of `ESTIMATORS` (J. Schulman, "Approximating KL divergence", 2020).
    """
    return ESTIMATORS[estimator](log_ratio)


def k1(log_ratio: Array) -> Array:
    """The log ratio, unbiased, of any sign.

    As a loss it has the gradient of k2, which is that of the KL in expectation; its own is 0 in
    expectation and regularises nothing (arXiv 2506.09477; verl's "k1+").
    """
    square = k2(log_ratio)
    return lax.stop_gradient(log_ratio) + (square - lax.stop_gradient(square))


def k2(log_ratio: Array) -> Array:
    """Half the square of the log ratio."""
    return log_ratio**2 / 2


def k3(log_ratio: Array) -> Array:
    """exp(-log ratio) - 1 + log ratio, unbiased and never negative.

    Bounded as in verl's low_var_kl: the log ratio to +-20, the estimate to 10, with no gradient
    beyond, where that of exp would be in the millions.
    """
    bounded = jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    return jnp.minimum(jnp.expm1(-bounded) + bounded, MAX_K3)


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
