"""The reference: grouped-query attention by plain einsums, with all scores [.., T, T] in memory.

Letters beyond `batch.py`'s: S key columns, G = H / K query heads that share a key/value head.
"""

import jax
import jax.numpy as jnp

from rlif_jax.kernels.attention.segments import Segments, visible
from rlif_jax.kernels.precision import einsum

Array = jax.Array

# Finite, so that a query without any visible key gives a uniform softmax instead of NaN.
_MASKED = -1e30


def plain_attention(q_RTHA: Array, k_RTKA: Array, v_RTKA: Array, segments: Segments) -> Array:
    """Attention as `api.attention` defines it; returns [R, T, H, A] in q's type."""
    R, T, H, A = q_RTHA.shape
    K, column_T = k_RTKA.shape[2], jnp.arange(T)
    seen_RTS = visible(segments.own, segments.prefix_or_own, segments.own, column_T, column_T)
    seen_RKGTS = seen_RTS[:, None, None]
    q_RTKGA = q_RTHA.reshape(R, T, K, H // K, A)
    z_RKGTS = einsum("RTKGA,RSKA->RKGTS", q_RTKGA, k_RTKA, preferred_element_type=jnp.float32)
    weight_RKGTS = jax.nn.softmax(jnp.where(seen_RKGTS, z_RKGTS * A**-0.5, _MASKED), axis=-1)
    weight_RKGTS = jnp.where(seen_RKGTS, weight_RKGTS, 0.0).astype(v_RTKA.dtype)
    out_RTKGA = einsum(
        "RKGTS,RSKA->RTKGA", weight_RKGTS, v_RTKA, preferred_element_type=jnp.float32
    )
    return out_RTKGA.reshape(R, T, H, A).astype(q_RTHA.dtype)
