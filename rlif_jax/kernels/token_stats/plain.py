"""The plain reference of `token_stats`: all logits in memory, library reductions and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rlif_jax.batch import TokenStats
from rlif_jax.kernels.precision import head_einsum

Array = jax.Array


def token_stats(
    x_TD: Array,
    head_VD: Array,
    target_T: Array | np.ndarray,
    temperature: float | Array,
    vocab_size: int | None = None,
) -> TokenStats:
    """TokenStats of softmax(x @ head^T / temperature) at each target, from logits [..., V].

    Arguments and gradients as in `rlif_jax.kernels.token_stats.api.token_stats`.
    """
    head_VD = head_VD[:vocab_size].astype(x_TD.dtype)
    z_TV = head_einsum("...d,vd->...v", x_TD, head_VD)
    z_TV = z_TV / temperature
    lse_T = jax.nn.logsumexp(z_TV, axis=-1)
    logp_TV = z_TV - lse_T[..., None]
    p_TV = jnp.exp(logp_TV)
    still_TV = lax.stop_gradient(z_TV)
    two_T2 = jnp.exp(lax.top_k(still_TV, 2)[0] - lax.stop_gradient(lse_T)[..., None])
    return TokenStats(
        logprob=jnp.take_along_axis(logp_TV, target_T[..., None], axis=-1)[..., 0],
        entropy=-(p_TV * logp_TV).sum(-1),
        self_certainty=lax.stop_gradient(lse_T) - still_TV.mean(-1),
        top1=two_T2[..., 0],
        top2=two_T2[..., 1],
    )
