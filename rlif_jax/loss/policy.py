"""The loss of a mini-batch: surrogate, KL and entropy bonus, float32 throughout."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from rlif_jax.batch import Array
from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.loss.aggregation import Denominator, token_weights
from rlif_jax.loss.kl import kl_estimate
from rlif_jax.loss.tokens import LossTokens, within_mask
from rlif_jax.loss.variants import VARIANTS


@jax.named_scope("loss")
def policy_loss(
    tokens: LossTokens, loss: Loss, denominator: Denominator, entropy_coef: Array | float
) -> tuple[Array, dict[str, Array]]:
    """This piece's share of the loss, float32 [], and of the metrics.

    Per token: the surrogate of `loss.variant`, times the sampler's correction where
    `loss.sampler_correction_cap` is set, + kl_coef * KL(policy || reference) - entropy_coef *
    entropy. Tokens are aggregated as `loss.aggregation` says. A piece holds whole completions;
    `denominator` is `loss_denominator` of the whole mini-batch.

    Metrics, each summing over pieces to its value for the mini-batch: `loss/policy` (the surrogate
    as aggregated), and means over tokens: `loss/entropy`, `loss/old_kl` (k1 of the old policy to
    this one), `loss/old_distance` (|log ratio|), `loss/ratio`; `loss/clip_fraction` (tokens on
    which the clip is in force), `loss/dual_clip_fraction`, `loss/selected_fraction` where the
    variant has them; `loss/kl` (the estimate in the loss) with a reference; with the correction
    `loss/sampler_weight` and `loss/sampler_capped_fraction`.

    Raises:
        UserError: `loss` asks for log-probabilities or a selection that `tokens` lack.
    """
    if tokens.ref_logprob is None and loss.kl_coef != 0:
        raise UserError(
            f"loss.kl_coef={loss.kl_coef} needs the reference's log-probabilities: score the "
            "completions under the reference, or set loss.kl_coef to 0."
        )
    tokens = within_mask(tokens)
    own_RT = lax.stop_gradient(tokens.logprob)
    old_RT = own_RT if tokens.old_logprob is None else tokens.old_logprob
    log_ratio_RT = tokens.logprob - old_RT
    weight_RT = token_weights(tokens, loss) / denominator.loss
    aggregate = lambda x_RT: (jnp.where(tokens.mask, x_RT, 0.0) * weight_RT).sum()
    token_mean = lambda x_RT: jnp.where(tokens.mask, x_RT, 0.0).sum() / denominator.tokens

    surrogate_RT, measured = VARIANTS[loss.variant](tokens, log_ratio_RT, loss)
    if (cap := loss.sampler_correction_cap) is not None:
        correction_RT, capped_RT = sampler_correction(old_RT, tokens.sampler_logprob, cap)
        surrogate_RT *= correction_RT
        measured |= {
            "loss/sampler_weight": correction_RT,
            "loss/sampler_capped_fraction": capped_RT,
        }
    policy = aggregate(surrogate_RT)
    total = policy - entropy_coef * aggregate(tokens.entropy)
    measured |= {
        "loss/entropy": tokens.entropy,
        "loss/old_kl": -log_ratio_RT,
        "loss/old_distance": jnp.abs(log_ratio_RT),
    }
    if tokens.ref_logprob is not None:
        kl_RT = kl_estimate(tokens.logprob - tokens.ref_logprob, loss.kl_estimator)
        total += loss.kl_coef * aggregate(kl_RT)
        measured["loss/kl"] = kl_RT
    metrics = {name: token_mean(x_RT) for name, x_RT in measured.items()}
    return total, lax.stop_gradient({"loss/policy": policy, **metrics})


def sampler_correction(old_RT: Array, sampler_RT: Array | None, cap: float) -> tuple[Array, Array]:
    """min(p_old / p_sampler, cap) from log-probabilities, and where the cap is in force (bool).

    It weighs the surrogate of tokens that the sampler drew with other numerics than the trainer's:
    truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings
    you off-policy RL training"; verl's rollout correction at the level of tokens).

    Raises:
        UserError: the sampler's are missing.
    """
    if sampler_RT is None:
        raise UserError(
            f"loss.sampler_correction_cap={cap} needs the sampler's log-probabilities: keep those "
            "of the rollout, or set the cap to None."
        )
    log_weight_RT, largest = old_RT - sampler_RT, math.log(cap)
    return jnp.exp(jnp.minimum(log_weight_RT, largest)), log_weight_RT > largest
