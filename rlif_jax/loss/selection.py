"""Which tokens Clip-Cov and KL-Cov treat apart: those that pull the entropy down the most."""

import jax
import jax.numpy as jnp

from rlif_jax.batch import Array
from rlif_jax.config import Loss


def covariance_selection(
    logprob_BC: Array, advantage_B: Array, mask_BC: Array, loss: Loss, key: Array
) -> jax.Array | None:
    """The tokens that `loss.variant` selects in a whole mini-batch, bool [B, C]; None: no choice.

    By the covariance (A - mean A) (ln p - mean ln p), means over the mini-batch's tokens, of which
    `loss.cov_fraction` are selected, at least one (arXiv 2505.22617; verl's clip_cov and kl_cov).
    "kl_cov": those of largest covariance, the earlier of equals. "clip_cov": drawn at random, with
    `key`, from those whose covariance lies inside `loss.clip_cov_range`, or all of them where they
    are fewer.

    `logprob_BC` is that of the policy before the step's updates, where verl takes the current one,
    so that the choice is made before the mini-batch is cut into pieces and does not depend on them.
    A token's draw depends on its row and column alone. Entries outside the mask are ignored.
    """
    if loss.variant not in ("clip_cov", "kl_cov"):
        return None
    covariance_BC = _covariance(logprob_BC, advantage_B, mask_BC)
    if loss.variant == "kl_cov":
        rank_BC, eligible_BC = covariance_BC, mask_BC
    else:
        low, high = loss.clip_cov_range
        eligible_BC = mask_BC & (covariance_BC > low) & (covariance_BC < high)
        rank_BC = _draw(key, *mask_BC.shape)
    share = jnp.floor(loss.cov_fraction * mask_BC.sum().astype(jnp.float32)).astype(jnp.int32)
    order = jnp.argsort(jnp.where(eligible_BC, -rank_BC, jnp.inf).reshape(-1), stable=True)
    first = jnp.arange(order.size) < jnp.maximum(share, 1)
    return jnp.zeros(order.size, bool).at[order].set(first).reshape(mask_BC.shape) & eligible_BC


def _covariance(logprob_BC: Array, advantage_B: Array, mask_BC: Array) -> jax.Array:
    """(A - mean A) (ln p - mean ln p) of each token, float32 [B, C]; means over the mask."""
    count = jnp.maximum(mask_BC.sum(), 1)

    def centred(x_BC: Array) -> jax.Array:
        x_BC = jnp.where(mask_BC, x_BC, 0.0).astype(jnp.float32)
        return x_BC - x_BC.sum() / count

    advantage_BC = jnp.broadcast_to(advantage_B[:, None], mask_BC.shape)
    return centred(advantage_BC) * centred(logprob_BC)


def _draw(key: Array, rows: int, columns: int) -> jax.Array:
    """A uniform number in [0, 1) for each token, from its row and column alone."""

    def of_token(row: Array, column: Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, row), column))

    of_row = jax.vmap(of_token, (None, 0))
    return jax.vmap(of_row, (0, None))(jnp.arange(rows), jnp.arange(columns))
