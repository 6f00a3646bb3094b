"""Decode attention over a paged KV cache on GPU: JAX's own Pallas (Triton) kernel.

`jax.experimental.pallas.ops.gpu.paged_attention` takes the pool of pages as it lies, reads the
pages that the table names up to each slot's length, and splits a slot's pages over several thread
blocks, whose softmaxes it merges. Here the table is brought into the form that the kernel requires.

Everything here sees local arrays: on a mesh it is called inside `jax.shard_map`.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu.paged_attention import paged_attention

from rlif_jax.errors import UserError
from rlif_jax.kernels.precision import matmul_precision

Array = jax.Array

# Keys of one head loaded at a time, and as many values, in two stages: 64 KiB of shared memory, of
# which the smallest supported devices have 99. A page is never split, and may be twice as large.
_BLOCK_BYTES = 2**14
_SPLITS = 8  # thread blocks that share a slot's pages of one kv head


def gpu_kernel_fits(heads: int, kv_heads: int, head_dim: int, page: int, dtype: jnp.dtype) -> bool:
    """Whether `paged_attention_gpu` takes a cache of this form.

    `heads` and `kv_heads` are one device's; `dtype` is the cache's. Triton's tiles are powers of
    two and its matmuls at least 16 wide; a page of one head is at most 32 KiB.
    """
    return (
        heads % kv_heads == 0
        and head_dim in (16, 32, 64, 128, 256)
        and page in (1, 2, 4, 8, 16, 32, 64, 128)
        and jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16, jnp.float32)
        and page * head_dim * jnp.dtype(dtype).itemsize <= 2 * _BLOCK_BYTES
    )


def paged_attention_gpu(
    q_BHA: Array,
    k_pages: Array,
    v_pages: Array,
    table_BJ: Array,
    length_B: Array,
    first_page: Array | int,
    *,
    interpret: bool = False,
) -> Array:
    """Attention of one query a slot over the tokens in the slot's pages of one layer.

    Args:
        q_BHA: query heads [B, H, A], not scaled; query head h reads kv head h // (H // K).
        k_pages: keys [K, S, page, A] of all layers.
        v_pages: values, likewise.
        table_BJ: int32 [B, J], page j of slot b as numbered within a layer. Entries that a slot
            does not use may be loaded too, and are masked: they must name a page (0, say).
        length_B: int32 [B], tokens of a slot, the one just written among them, at most J * page.
        first_page: int32 scalar, may be traced: the layer's first page in the pool.
        interpret: run the kernel as plain JAX, on any platform.

    Returns:
        [B, H, A] in the dtype of `q_BHA`: softmax(q . k / sqrt(A)) . v, the softmax in float32;
        zeros where the length is 0. With a bfloat16 cache the parts of a slot are rounded to
        bfloat16 before they are merged; with a float32 cache nothing is rounded.

    Raises:
        UserError: `gpu_kernel_fits` is false.
    """
    (_, H, A), (K, _, page, _), (_, J) = q_BHA.shape, k_pages.shape, table_BJ.shape
    if not gpu_kernel_fits(H, K, A, page, k_pages.dtype):
        raise UserError(
            "Paged attention on a GPU supports pages of 1 to 128 tokens and heads of width 16 to "
            f"256, both powers of two, with at most {2 * _BLOCK_BYTES} bytes of one head per page. "
            f"This {k_pages.dtype} cache has pages of {page} tokens, {H} query heads and {K} "
            f"key/value heads of width {A}. Use the plain kernel for it."
        )
    pages_per_block = max(1, _BLOCK_BYTES // (page * A * k_pages.dtype.itemsize))
    # Whole blocks, the same number in every split: the table is filled up with the null page.
    table_BJ = jnp.pad(table_BJ, ((0, 0), (0, -J % (pages_per_block * _SPLITS))))
    # Scaled in float32; the kernel's matmuls want both sides of one dtype.
    q_scaled_BHA = (q_BHA.astype(jnp.float32) * A**-0.5).astype(k_pages.dtype)
    with jax.default_matmul_precision(matmul_precision(k_pages.dtype).name.lower()):
        out_BHA = paged_attention(
            q_scaled_BHA,
            k_pages,
            v_pages,
            table_BJ + first_page,
            length_B,
            pages_per_compute_block=pages_per_block,
            k_splits=_SPLITS,
            interpret=interpret,
        )
    return out_BHA.astype(q_BHA.dtype)
