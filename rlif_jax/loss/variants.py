"""Policy-gradient surrogates by name: the value of each token, to be minimised.

A variant is a pure function of tokens that are `within_mask` and of ln p - ln p_old [R, T]; a new
one is a function here and its name in `VARIANTS` and in the choices of `loss.variant`. Other
published losses are settings:

- Dr. GRPO (arXiv 2503.20783): "grpo" with loss.advantage and loss.aggregation "dr_grpo".
- DAPO (arXiv 2503.14476): "grpo" with loss.clip_high 0.28, loss.aggregation "token_mean" and the
  penalty of overlong completions (reward.overlong_penalty, or loss.overlong_filter).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from rlif_jax.batch import Array
from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.loss.tokens import LossTokens, completion_mean

MAX_LOG_RATIO = 20.0
"""exp of it is finite and far outside any clip range."""


class Surrogate(NamedTuple):
    """`value` float32 [R, T]; `measured` [R, T] by metric name, to be averaged over tokens."""

    value: Array
    measured: dict[str, Array]


Variant = Callable[[LossTokens, Array, Loss], Surrogate]


def likelihood_ratio(log_ratio: Array) -> Array:
    """Policy over old policy, exp(ln p - ln p_old), finite whatever the log ratio."""
    return jnp.exp(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def _clipped(ratio_RT: Array, advantage_RT: Array, loss: Loss) -> tuple[Array, Array]:
    """PPO's max(-A r, -A clip(r, 1 - low, 1 + high)), and where the clip is in force (bool)."""
    plain_RT = -advantage_RT * ratio_RT
    bounded_RT = -advantage_RT * jnp.clip(ratio_RT, 1 - loss.clip_low, 1 + loss.clip_high)
    return jnp.maximum(plain_RT, bounded_RT), bounded_RT > plain_RT


def grpo(tokens: LossTokens, log_ratio_RT: Array, loss: Loss) -> Surrogate:
    """PPO's clipped surrogate of each token (arXiv 1707.06347), used by GRPO (arXiv 2402.03300).

    For A < 0 it is at most -A c with the dual clip c (arXiv 1912.09729), as in verl's
    compute_policy_loss_vanilla.
    """
    ratio_RT = likelihood_ratio(log_ratio_RT)
    value_RT, clipped_RT = _clipped(ratio_RT, tokens.advantage, loss)
    measured = {"loss/ratio": ratio_RT, "loss/clip_fraction": clipped_RT}
    if loss.dual_clip is not None:
        limit_RT = -tokens.advantage * loss.dual_clip
        dual_RT = (tokens.advantage < 0) & (value_RT > limit_RT)
        value_RT = jnp.where(dual_RT, limit_RT, value_RT)
        measured["loss/dual_clip_fraction"] = dual_RT
    return Surrogate(value_RT, measured)


def gspo(tokens: LossTokens, log_ratio_RT: Array, loss: Loss) -> Surrogate:
    """The clipped surrogate of the completion's ratio s = exp(mean log ratio) (arXiv 2507.18071).

    Each token has the ratio stop(s) p / stop(p), as in the paper's GSPO-token and in verl's gspo:
    where the tokens of a completion share one advantage, values and gradients are those of s. The
    paper's objective is the mean over completions (loss.aggregation "sequence_mean").
    """
    mean_RT = completion_mean(log_ratio_RT, tokens)
    own_RT = tokens.logprob - lax.stop_gradient(tokens.logprob)  # 0, with a gradient of 1
    ratio_RT = likelihood_ratio(lax.stop_gradient(mean_RT) + own_RT)
    value_RT, clipped_RT = _clipped(ratio_RT, tokens.advantage, loss)
    return Surrogate(value_RT, {"loss/ratio": ratio_RT, "loss/clip_fraction": clipped_RT})


def cispo(tokens: LossTokens, log_ratio_RT: Array, loss: Loss) -> Surrogate:
    """-A stop(clip(r, 1 - low, 1 + high)) ln p (arXiv 2506.13585): a clipped token still trains.

    The paper clips above only, which is loss.clip_low 1; verl clips on both sides.
    """
    ratio_RT = lax.stop_gradient(likelihood_ratio(log_ratio_RT))
    weight_RT = jnp.clip(ratio_RT, 1 - loss.clip_low, 1 + loss.clip_high)
    value_RT = -tokens.advantage * weight_RT * tokens.logprob
    clipped_RT = weight_RT != ratio_RT
    return Surrogate(value_RT, {"loss/ratio": ratio_RT, "loss/clip_fraction": clipped_RT})


def clip_cov(tokens: LossTokens, log_ratio_RT: Array, loss: Loss) -> Surrogate:
    """The clipped surrogate, with none and no gradient for selected tokens (arXiv 2505.22617).

    See `covariance_selection`. As in verl there is no dual clip.
    """
    selected_RT = _selected(tokens, loss)
    ratio_RT = likelihood_ratio(log_ratio_RT)
    value_RT, clipped_RT = _clipped(ratio_RT, tokens.advantage, loss)
    measured = {
        "loss/ratio": ratio_RT,
        "loss/clip_fraction": clipped_RT,
        "loss/selected_fraction": selected_RT,
    }
    return Surrogate(jnp.where(selected_RT, 0.0, value_RT), measured)


def kl_cov(tokens: LossTokens, log_ratio_RT: Array, loss: Loss) -> Surrogate:
    """-A r, plus kl_cov_coef * |log ratio| for selected tokens (arXiv 2505.22617); no clip.

    See `covariance_selection`. The penalty is the form of verl and of the authors' code.
    """
    selected_RT = _selected(tokens, loss)
    ratio_RT = likelihood_ratio(log_ratio_RT)
    # |x| as x sign(x): JAX's slope of abs at 0, where a step's first update stands, is 1.
    distance_RT = log_ratio_RT * lax.stop_gradient(jnp.sign(log_ratio_RT))
    penalty_RT = jnp.where(selected_RT, loss.kl_cov_coef * distance_RT, 0.0)
    measured = {"loss/ratio": ratio_RT, "loss/selected_fraction": selected_RT}
    return Surrogate(-tokens.advantage * ratio_RT + penalty_RT, measured)


def _selected(tokens: LossTokens, loss: Loss) -> Array:
    if tokens.selected is None:
        raise UserError(
            f"loss.variant={loss.variant!r} needs the tokens of largest covariance: give "
            "LossTokens.selected what covariance_selection returns for the mini-batch."
        )
    return tokens.selected


VARIANTS: dict[str, Variant] = {
    "grpo": grpo,
    "gspo": gspo,
    "cispo": cispo,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
}
