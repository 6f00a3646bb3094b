"""Attention on TPUs: JAX's splash attention kernel, told which blocks to visit.

`jax.experimental.pallas.ops.tpu.splash_attention` takes a static mask as a rule. Here the blocks
come from the segments, which are data: rows of short sequences cost what their sequences cost.
The kernel multiplies float32 in bfloat16, so it is for bfloat16 alone.

A key is visible to the kernel if two identifiers are equal, the query's and the key's, and if a
function of a number of the query and the key's column says so. That is enough for prompts that
several completions share: the keys stand there twice. In the first copy a completion looks for its
prompt; in the second, every column for its own segment.

Letters beyond `batch.py`'s: S columns of keys, T or 2 T; J blocks of a row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask_info,
)

from rlif_jax.kernels.attention.segments import Segments, needed_blocks, whole_blocks

Array = jax.Array

_BLOCK, _LANES = 512, 128
_COLUMN_BITS = 15
"""Bits of a column's number: two of them and a flag are one int32 of a query."""


def refusal(platform: str, dtype: str, segments: Segments) -> str | None:
    """Why the kernel cannot compute this, as the end of a sentence; None if it can."""
    T = segments.own.shape[1]
    if platform != "tpu":
        return f"runs on TPUs, and this stage is compiled for the platform {platform!r}"
    if dtype != "bfloat16":
        return f"multiplies in bfloat16, and the activations are {dtype}"
    if segments.prefix is not None and T > 2**_COLUMN_BITS:
        return f"takes rows of shared prompts up to {2**_COLUMN_BITS} columns, and these have {T}"
    return None


class Rule(NamedTuple):
    """What queries see: identifiers that must be equal, numbers for `sees`, blocks to visit."""

    query_RT: Array
    key_RS: Array
    number_RT: Array
    needed_RJJ: Array
    sees: Callable[[Array, Array], Array]


def splash_attention(
    q_RTHA: Array, k_RTKA: Array, v_RTKA: Array, segments: Segments, interpret: bool = False
) -> Array:
    """Attention as `api.attention` defines it, of bfloat16; returns [R, T, H, A].

    q is multiplied by A**-0.5 in its own type.
    """
    T, A = q_RTHA.shape[1], q_RTHA.shape[3]
    block = block_columns(T)
    q_RHTA, k_RKSA, v_RKSA = (
        whole_blocks(x, block).swapaxes(1, 2) for x in (q_RTHA * A**-0.5, k_RTKA, v_RTKA)
    )
    rule = _rule(segments.own, segments.prefix, block)
    if segments.prefix is not None:
        k_RKSA, v_RKSA = (jnp.concatenate([x, x], axis=2) for x in (k_RKSA, v_RKSA))

    def row(q, k, v, query_T, key_S, number_T, needed_JJ):
        kernel = _kernel(needed_JJ, number_T, rule.sees, block, interpret)
        return cast(Array, kernel(q, k, v, splash_attention_kernel.SegmentIds(query_T, key_S)))

    out_RHTA = jax.vmap(row)(q_RHTA, k_RKSA, v_RKSA, *rule[:4])
    # Empty columns are a segment to the kernel, which sees itself.
    return jnp.where(segments.own[..., None, None] != 0, out_RHTA.swapaxes(1, 2)[:, :T], 0)


def visited_blocks(own_RT: Array, prefix_RT: Array | None, block: int) -> Array:
    """The blocks of keys that each block of queries visits, bool [R, J, J] or [R, J, 2 J]."""
    return _rule(own_RT, prefix_RT, block).needed_RJJ


def block_columns(T: int) -> int:
    """Columns of a block of queries, and of one of keys, in rows of T."""
    return min(_BLOCK, T + -T % _LANES)


def _rule(own_RT: Array, prefix_RT: Array | None, block: int) -> Rule:
    """The rule of rows with these segments, with empty columns behind them to whole blocks."""
    own_RT = whole_blocks(own_RT, block)
    if prefix_RT is None:
        return own_segments(own_RT, block)
    return shared_prompts(own_RT, whole_blocks(prefix_RT, block), block)


def own_segments(own_RT: Array, block: int) -> Rule:
    """Each column sees its own segment up to itself."""
    column_RT = jnp.broadcast_to(jnp.arange(own_RT.shape[1]), own_RT.shape)
    return Rule(own_RT, own_RT, column_RT, _visited(own_RT, block), lax.ge)


def shared_prompts(own_RT: Array, prefix_RT: Array, block: int) -> Rule:
    """Completions see, beside their own segments, the first copy of their prompts."""
    T = own_RT.shape[1]
    column_T = jnp.arange(T)
    completion_RT = (prefix_RT != own_RT) & (own_RT != 0)
    changes_RT = jnp.pad(own_RT[:, 1:] != own_RT[:, :-1], ((0, 0), (1, 0)))
    start_RT = lax.cummax(jnp.where(changes_RT, column_T, 0), axis=1)
    number_RT = (completion_RT << 2 * _COLUMN_BITS) | (start_RT << _COLUMN_BITS) | column_T
    prompts_RJJ = needed_blocks(own_RT, jnp.where(completion_RT, prefix_RT, 0), block)
    return Rule(
        query_RT=prefix_RT,
        key_RS=jnp.concatenate([own_RT, prefix_RT], axis=1),
        number_RT=number_RT,
        needed_RJJ=jnp.concatenate([prompts_RJJ, _visited(own_RT, block)], axis=2),
        sees=_prompt_or_own(T),
    )


@functools.cache  # the kernel compares functions by identity
def _prompt_or_own(T: int) -> Callable[[Array, Array], Array]:
    """Whether a query sees a key column of the two copies of T columns, by the query's number."""
    bits = 2**_COLUMN_BITS - 1

    def sees(number: Array, key_column: Array) -> Array:
        completion = number >> 2 * _COLUMN_BITS != 0
        start, last = number >> _COLUMN_BITS & bits, number & bits
        own_column = key_column - T
        return (completion & (own_column < 0)) | ((start <= own_column) & (own_column <= last))

    return sees


def _visited(own_RT: Array, block: int) -> Array:
    """The blocks that hold the queries' own segments, and those on the diagonal.

    Every block of queries visits one block of keys at least, or its output would not be written.
    """
    return needed_blocks(own_RT, own_RT, block) | jnp.eye(own_RT.shape[1] // block, dtype=bool)


def _kernel(
    needed_JJ: Array,
    number_T: Array,
    sees: Callable[[Array, Array], Array],
    block: int,
    interpret: bool,
) -> splash_attention_kernel.SplashAttentionKernel:
    """The kernel that visits these blocks, [query blocks, key blocks], with the mask `sees`."""

    def visits(axis: int) -> splash_attention_mask_info.MaskInfo:
        return splash_attention_mask_info.MaskInfo(
            data_next=_next_needed(needed_JJ, axis)[None],
            mask_next=None,
            block_mask=needed_JJ.astype(jnp.int32)[None],
            partial_mask_blocks=None,
            q_sequence=cast(Any, number_T),
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
        mask_function=sees,
        interpret=interpret,
    )


def _next_needed(needed_JJ: Array, axis: int) -> Array:
    """For each block the next needed one along an axis, itself if needed; the first after the last.

    The kernel fetches these blocks, so that it fetches nothing for a block that it skips.
    """
    count = needed_JJ.shape[axis]
    at_JJ = lax.broadcasted_iota(jnp.int32, needed_JJ.shape, axis)
    later_JJ = lax.cummin(jnp.where(needed_JJ, at_JJ, count), axis, reverse=True)
    first = lax.slice_in_dim(later_JJ, 0, 1, axis=axis) % count  # of none needed, 0
    return jnp.where(later_JJ < count, later_JJ, first)
