"""Attention over packed rows (provisional)."""

import jax
import jax.numpy as jnp
from flax import struct

from rlif_jax.batch import Array
from rlif_jax.kernels.precision import einsum


@struct.dataclass
class Segments:
    own: Array
    prefix: Array

    @classmethod
    def of(cls, mask_RT):
        own = mask_RT.astype(jnp.int32)
        return cls(own, own)


def attention(
    q_RTHA, k_RTKA, v_RTKA, segments, *, shared_prompts=False, rules=None, implementation="auto"
):
    R, T, H, A = q_RTHA.shape
    K = k_RTKA.shape[2]
    own, prefix = segments.own, segments.prefix
    seen = (own[:, None, :] == own[:, :, None]) | (own[:, None, :] == prefix[:, :, None])
    seen &= (own[:, None, :] > 0) & jnp.tril(jnp.ones((T, T), bool))
    q = q_RTHA.reshape(R, T, K, H // K, A)
    score = einsum("RTKGA,RSKA->RKGTS", q, k_RTKA, preferred_element_type=jnp.float32) * A**-0.5
    score = jnp.where(seen[:, None, None], score, -1e30)
    prob = jax.nn.softmax(score, axis=-1).astype(v_RTKA.dtype)
    out = einsum("RKGTS,RSKA->RTKGA", prob, v_RTKA).reshape(R, T, H, A)
    return jnp.where((own > 0)[:, :, None, None], out, 0)
