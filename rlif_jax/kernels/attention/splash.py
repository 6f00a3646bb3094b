"""Attention on TPUs: JAX's splash attention kernel, told which blocks to visit.

`jax.experimental.pallas.ops.tpu.splash_attention` takes a static mask as a rule. Here the blocks
come from the segments, which are data: rows of short sequences cost what their sequences cost.
The kernel multiplies float32 in bfloat16, so it is for bfloat16 alone.

Letters beyond `batch.py`'s: J blocks of a row.
"""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask_info,
)

from rlif_jax.kernels.attention.segments import Segments, needed_blocks, whole_blocks

Array = jax.Array

_BLOCK, _LANES = 512, 128


def refusal(platform: str, dtype: str, segments: Segments) -> str | None:
    """Why the kernel cannot compute this, as the end of a sentence; None if it can."""
    if platform != "tpu":
        return f"runs on TPUs, and this stage is compiled for the platform {platform!r}"
    if dtype != "bfloat16":
        return f"multiplies in bfloat16, and the activations are {dtype}"
    if segments.prefix is not None:
        return "cannot let several completions see one prompt"
    return None


def splash_attention(
    q_RTHA: Array, k_RTKA: Array, v_RTKA: Array, segments: Segments, interpret: bool = False
) -> Array:
    """Attention as `api.attention` defines it, of bfloat16 without prefixes; [R, T, H, A].

    q is multiplied by A**-0.5 in its own type.
    """
    T, A = q_RTHA.shape[1], q_RTHA.shape[3]
    block = min(_BLOCK, T + -T % _LANES)
    q, k, v, own_RT = (
        whole_blocks(x, block) for x in (q_RTHA * A**-0.5, k_RTKA, v_RTKA, segments.own)
    )
    J = own_RT.shape[1] // block
    # Every block of queries needs one block of keys at least, or its output is never written.
    needed_RJJ = needed_blocks(own_RT, own_RT, block) | jnp.eye(J, dtype=bool)

    def row(q_HTA: Array, k_KTA: Array, v_KTA: Array, own_T: Array, needed_JJ: Array) -> Array:
        kernel = _kernel(needed_JJ, block, interpret)
        ids = splash_attention_kernel.SegmentIds(own_T, own_T)
        return cast(Array, kernel(q_HTA, k_KTA, v_KTA, ids))

    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out_RHTA = jax.vmap(row)(q, k, v, own_RT, needed_RJJ)
    # Empty columns are a segment to the kernel, which sees itself.
    return jnp.where(segments.own[..., None, None] != 0, out_RHTA.swapaxes(1, 2)[:, :T], 0)


def _kernel(
    needed_JJ: Array, block: int, interpret: bool
) -> splash_attention_kernel.SplashAttentionKernel:
    """The kernel that visits these blocks, [query blocks, key blocks], causally masked inside."""
    column_T = np.arange(needed_JJ.shape[0] * block)

    def visits(axis: int) -> splash_attention_mask_info.MaskInfo:
        return splash_attention_mask_info.MaskInfo(
            data_next=_next_needed(needed_JJ, axis)[None],
            mask_next=None,
            block_mask=needed_JJ.astype(jnp.int32)[None],
            partial_mask_blocks=None,
            q_sequence=column_T,
        )

    # The fused backward pass would keep a gradient of the queries for every block of keys.
    sizes = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    return splash_attention_kernel.SplashAttentionKernel(
        fwd_mask_info=visits(1),
        dq_mask_info=visits(1),
        dkv_mask_info=visits(0),
        block_sizes=splash_attention_kernel.BlockSizes(**dict.fromkeys(sizes, block)),
        is_mqa=False,
        save_residuals=False,
        mask_value=splash_attention_kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name="attention_out",
        mask_function=_causal,
        interpret=interpret,
    )


def _causal(query_column: Array, key_column: Array) -> Array:
    return query_column >= key_column


def _next_needed(needed_JJ: Array, axis: int) -> Array:
    """For each block the next needed one along an axis, itself if needed; the first after the last.

    The kernel fetches these blocks, so that it fetches nothing for a block that it skips.
    """
    J = needed_JJ.shape[0]
    at_JJ = lax.broadcasted_iota(jnp.int32, (J, J), axis)
    later_JJ = lax.cummin(jnp.where(needed_JJ, at_JJ, J), axis, reverse=True)
    first = lax.slice_in_dim(later_JJ, 0, 1, axis=axis)
    return jnp.where(later_JJ < J, later_JJ, first)
