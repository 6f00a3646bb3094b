"""The loss of a mini-batch: surrogate, KL and entropy bonus, float32 throughout."""

import jax
import jax.numpy as jnp
from jax import lax

from rlif_jax.batch import Array
from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.loss.aggregation import Denominator, token_weights
from rlif_jax.loss.kl import kl_estimate
from rlif_jax.loss.surrogate import clipped_surrogate, likelihood_ratio


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
            f"loss.kl_coef={loss.kl_coef} needs the reference's log-probabilities: score the "
            "completions under the reference, or set loss.kl_coef to 0."
        )
    # Masked here, before any arithmetic, so that neither values nor gradients see what is outside.
    valid = lambda x_BC: jnp.where(mask_BC, x_BC, 0.0).astype(jnp.float32)
    logprob_BC, entropy_BC = valid(logprob_BC), valid(entropy_BC)
    log_ratio_BC = logprob_BC - lax.stop_gradient(valid(old_logprob_BC))
    advantage_B1 = lax.stop_gradient(advantage_B.astype(jnp.float32))[:, None]
    ratio_BC = likelihood_ratio(log_ratio_BC)
    surrogate_BC, clipped_BC, dual_BC = clipped_surrogate(ratio_BC, advantage_B1, loss)

    weight_BC = token_weights(mask_BC, loss) / denominator.loss
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
