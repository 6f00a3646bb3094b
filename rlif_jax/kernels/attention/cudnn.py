"""Attention on NVIDIA GPUs: cuDNN's flash attention through `jax.nn.dot_product_attention`.

JAX offers cuDNN's packed layout in private functions alone and turns a mask into a bias [T, T], so
this takes one sequence a row.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from rlif_jax.kernels.attention.segments import Segments

Array = jax.Array

_WIDEST = 128
"""Head width that cuDNN takes on every GPU since Ampere."""


def refusal(platform: str, dtype: str, head_dim: int, segments: Segments) -> str | None:
    """Why cuDNN cannot compute this, as the end of a sentence; None if it can."""
    if platform != "gpu":
        return f"runs on NVIDIA GPUs, and this stage is compiled for the platform {platform!r}"
    if dtype != "bfloat16":
        return f"multiplies in bfloat16, and the activations are {dtype}"
    if head_dim % 8 or head_dim > _WIDEST:
        return f"takes heads of a width up to {_WIDEST} that 8 divides, and these have {head_dim}"
    if not segments.single:
        return "takes one sequence a row, and these rows may hold several"
    return None


def cudnn_attention(
    q_RTHA: Array,
    k_RTKA: Array,
    v_RTKA: Array,
    segments: Segments,
    kernel: Literal["cudnn", "xla"] = "cudnn",
) -> Array:
    """Attention as `api.attention` defines it, of rows with one sequence each; [R, T, H, A]."""
    live_RT = segments.own != 0
    T, live_RT11 = live_RT.shape[1], live_RT[..., None, None]
    first_R1 = jnp.argmax(live_RT, axis=1)[:, None]
    length_R = jnp.maximum(live_RT.sum(axis=1, dtype=jnp.int32), 1)  # a softmax of no keys is NaN

    def rolled(x: Array, by_R1: Array) -> Array:
        return jnp.take_along_axis(x, ((jnp.arange(T) + by_R1) % T)[..., None, None], axis=1)

    # What cuDNN leaves in the gradients of columns behind a sequence ends at this `where`.
    q, k, v = (rolled(jnp.where(live_RT11, x, 0), first_R1) for x in (q_RTHA, k_RTKA, v_RTKA))
    out_RTHA = jax.nn.dot_product_attention(
        q,
        k,
        v,
        is_causal=True,
        query_seq_lengths=length_R,
        key_value_seq_lengths=length_R,
        implementation=kernel,
    )
    return jnp.where(live_RT11, rolled(out_RTHA, -first_R1), 0)
