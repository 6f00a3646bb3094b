"""Group advantages and the policy-gradient loss: pure functions, float32 throughout.

A loss is a sum over pieces (micro-batches, devices): every piece divides by the one denominator of
the whole mini-batch, so that losses, gradients and metrics of pieces add up to those of the whole.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rlif_jax.batch import Array
from rlif_jax.config.schema import Loss
from rlif_jax.errors import UserError
from rlif_jax.groups import group_normalised, group_statistics

MAX_LOG_RATIO = 20.0  # exp of it is finite and far outside any clip range
MAX_K3 = 10.0  # nats a token, as in verl


def group_advantages(reward_B: Array, group_size: int, kind: str, std_floor: float) -> Array:
    """Advantages of rows n * G + g within their group of G samples, float32 [B].

    "grpo": (r - mean) / (unbiased std + 1e-6); "dr_grpo": r - mean; "none": r. The first two are
    exactly 0 in a group whose std is not above `std_floor` times its largest |reward|, so that
    rounding noise is never amplified (see `group_statistics`).

    Raises:
        UserError: rows are not whole groups, or "grpo"/"dr_grpo" is asked for groups of one.
    """
    reward_B = jnp.asarray(reward_B, jnp.float32)
    if kind == "none":
        return reward_B
    if group_size < 2:
        raise UserError(
            f"loss.advantage={kind!r} compares the samples of a prompt, and there is "
            f"{group_size} of each: set sampling.samples_per_prompt to 2 or more, or "
            "loss.advantage to 'none'."
        )
    if kind == "grpo":
        return group_normalised(reward_B, group_size, std_floor)
    return group_statistics(reward_B, group_size, std_floor).centred.reshape(-1)


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


@jax.named_scope("loss")
def policy_loss(
    logprob_BC: Array,
    entropy_BC: Array,
    old_logprob_BC: Array,
    ref_logprob_BC: Array | None,
    advantage_B: Array,
    mask_BC: Array,
    loss: Loss,
    denominator: Denominator,
) -> tuple[Array, dict[str, Array]]:
    """This piece's share of the loss, float32 [], and of the metrics.

    Per token: clipped surrogate + kl_coef * KL(policy || reference) - entropy_coef * entropy, with
    gradients through `logprob_BC` and `entropy_BC` only. Rows are aggregated as `loss.aggregation`
    says, over true entries of `mask_BC` alone; other entries may hold anything, NaN included.
    `denominator` is `loss_denominator` of the whole mini-batch.

    Metrics, each summing over pieces to its value for the mini-batch: `loss/policy` (the surrogate
    as aggregated), and means over tokens: `loss/entropy`, `loss/ratio`, `loss/clip_fraction` (those
    whose clipped surrogate is the larger), `loss/dual_clip_fraction`, `loss/old_kl` (k1 of the
    sampling policy to this one) and, with a reference, `loss/kl` (the estimate in the loss).

    Raises:
        UserError: `loss.kl_coef` is not 0 and there is no reference.
    """
    if ref_logprob_BC is None and loss.kl_coef != 0:
        raise UserError(
            f"loss.kl_coef={loss.kl_coef} needs the reference's log-probabilities, and there are "
            "none: score the completions under the reference, or set loss.kl_coef to 0."
        )
    # Masked here, before any arithmetic, so that neither values nor gradients see what is outside.
    valid = lambda x_BC: jnp.where(mask_BC, x_BC, 0.0).astype(jnp.float32)
    logprob_BC, entropy_BC = valid(logprob_BC), valid(entropy_BC)
    log_ratio_BC = logprob_BC - lax.stop_gradient(valid(old_logprob_BC))
    advantage_B1 = lax.stop_gradient(advantage_B.astype(jnp.float32))[:, None]
    ratio_BC = jnp.exp(jnp.clip(log_ratio_BC, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    surrogate_BC, clipped_BC, dual_BC = clipped_surrogate(ratio_BC, advantage_B1, loss)

    weight_BC = _token_weights(mask_BC, loss) / denominator.loss
    aggregate = lambda x_BC: (jnp.where(mask_BC, x_BC, 0.0) * weight_BC).sum()
    token_mean = lambda x_BC: jnp.where(mask_BC, x_BC, 0.0).sum() / denominator.tokens
    policy = aggregate(surrogate_BC)
    total = policy - loss.entropy_coef * aggregate(entropy_BC)
    metrics = {
        "loss/policy": policy,
        "loss/entropy": token_mean(entropy_BC),
        "loss/ratio": token_mean(ratio_BC),
        "loss/clip_fraction": token_mean(clipped_BC),
        "loss/dual_clip_fraction": token_mean(dual_BC),
        "loss/old_kl": token_mean(-log_ratio_BC),
        "loss/old_distance": token_mean(jnp.abs(log_ratio_BC)),
    }
    if ref_logprob_BC is not None:
        ref_logprob_BC = lax.stop_gradient(valid(ref_logprob_BC))
        kl_BC = kl_estimate(logprob_BC - ref_logprob_BC, loss.kl_estimator)
        total += loss.kl_coef * aggregate(kl_BC)
        metrics["loss/kl"] = token_mean(kl_BC)
    return total, {name: lax.stop_gradient(value) for name, value in metrics.items()}


def clipped_surrogate(
    ratio_BC: Array, advantage_B1: Array, loss: Loss
) -> tuple[Array, Array, Array]:
    """PPO's clipped surrogate to be minimised, and where clip and dual clip took effect (bool).

    max(-A r, -A clip(r, 1 - low, 1 + high)); for A < 0 at most -A c with the dual clip c
    (arXiv 1912.09729), as in verl's compute_policy_loss.
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


def kl_estimate(log_ratio: Array, estimator: str) -> Array:
    """KL(policy || reference) of sampled tokens from ln p - ln p_ref, nats, elementwise.

    k1: the log ratio, unbiased, any sign; k2: its square over 2; k3: exp(-log ratio) - 1 + log
    ratio, unbiased and never negative (J. Schulman, "Approximating KL divergence", 2020).

    As a loss k1 has the gradient of k2, which is that of the KL in expectation; its own is 0 in
    expectation and regularises nothing (arXiv 2506.09477; verl's "k1+"). k3 is bounded as in verl's
    low_var_kl: the log ratio to +-20, the estimate to 10, with no gradient beyond, where that of
    exp would be in the millions.
    """
    if estimator == "k3":
        bounded = jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        return jnp.minimum(jnp.expm1(-bounded) + bounded, MAX_K3)
    k2 = log_ratio**2 / 2
    if estimator == "k2":
        return k2
    return lax.stop_gradient(log_ratio) + (k2 - lax.stop_gradient(k2))


def _token_weights(mask_BC: Array, loss: Loss) -> Array:
    """1 per token; under sequence_mean 1 / tokens of the row."""
    if loss.aggregation != "sequence_mean":
        return jnp.ones(mask_BC.shape, jnp.float32)
    length_B1 = jnp.maximum(mask_BC.sum(axis=1, keepdims=True), 1)
    return jnp.broadcast_to(1.0 / length_B1.astype(jnp.float32), mask_BC.shape)
