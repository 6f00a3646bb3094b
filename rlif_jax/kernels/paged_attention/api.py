"""Attention of one query a slot, or a few, over keys and values that lie in pages of a pool.

Letters beyond `batch.py`'s: B slots, S pages of the pool, J pages of a slot, Q = B * W queries with
W of each slot: that of row b * W + w is the w-th of slot b. The pool holds the
pages of all layers, one layer after another; page p of a layer is at `first_page + p`. Token i of a
slot is row i % page of page `table_BJ[b, i // page]`. Page 0 of a layer is the null page: it is
never read, and slots that are not live write there.

Three kernels share this contract. `plain` runs anywhere and is the reference for the others; its
pools are keys [S, K, A, page] and values [S, K, page, A]: a page is contiguous in memory, and both
products read it in that order. `tpu` and `gpu` are JAX's own Pallas kernels, whose
pools are [K, S, page, A]. Everything here sees local arrays: on a mesh it is called inside
`sharding.on_shards`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from rlif_jax.kernels.precision import einsum

Array = jax.Array
Kernel = Literal["plain", "tpu", "gpu"]

# Finite, so that a page without any valid key gives numbers that can be multiplied by zero.
_MASKED = -1e30


def choose_kernel(
    platform: str,
    heads: int,
    kv_heads: int,
    head_dim: int,
    page: int,
    dtype: str,
    table_entries: int,
) -> Kernel:
    """The fastest kernel that takes a cache of this form; heads and entries are one device's."""
    if platform == "tpu":
        from rlif_jax.kernels.paged_attention.tpu import tpu_kernel_fits

        width = head_width("tpu", head_dim)
        if tpu_kernel_fits(heads, kv_heads, width, page, jnp.dtype(dtype), table_entries):
            return "tpu"
    if platform == "gpu":
        from rlif_jax.kernels.paged_attention.gpu import gpu_kernel_fits

        if gpu_kernel_fits(heads, kv_heads, head_dim, page, jnp.dtype(dtype)):
            return "gpu"
    return "plain"


def head_width(kernel: Kernel, head_dim: int) -> int:
    """The width of a head in the pool of a kernel."""
    if kernel == "tpu":
        from rlif_jax.kernels.paged_attention.tpu import tpu_head_width

        return tpu_head_width(head_dim)
    return head_dim


def pool_dtype(kernel: Kernel, dtype: str) -> jnp.dtype:
    """The type in which a kernel's pool holds numbers of `dtype`.

    The plain kernel keeps the bits of bfloat16 numbers as integers: XLA for CPUs converts the whole
    pool to float32 and back to write a row of bfloat16 into it (ten times the time).
    """
    half = jnp.dtype(dtype) == jnp.bfloat16 and kernel == "plain"
    return jnp.dtype(jnp.uint16) if half else jnp.dtype(dtype)


def _numbers(stored: Array) -> Array:
    """The numbers that the entries of a pool encode."""
    return lax.bitcast_convert_type(stored, jnp.bfloat16) if stored.dtype == jnp.uint16 else stored


def _stored(x: Array, pool: Array) -> Array:
    """Numbers as a pool holds them; the inverse of `_numbers`."""
    if pool.dtype == jnp.uint16:
        return lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)
    return x.astype(pool.dtype)


def pool_shapes(
    kernel: Kernel, heads: int, pages: int, page: int, head_dim: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the pools of keys and of values, with `pages` pages of all layers."""
    width = head_width(kernel, head_dim)
    if kernel == "plain":
        return (pages, heads, width, page), (pages, heads, page, width)
    return (heads, pages, page, width), (heads, pages, page, width)


def page_axis(kernel: Kernel) -> int:
    """The axis of a kernel's pool that counts pages."""
    return 0 if kernel == "plain" else 1


def paged_attention(
    kernel: Kernel,
    q_QHA: Array,
    k_pages: Array,
    v_pages: Array,
    table_BJ: Array,
    length_Q: Array,
    first_page: Array | int,
) -> Array:
    """softmax(q . k / sqrt(A)) . v over the first `length_Q` tokens of a slot, [Q, H, A].

    Query head h reads key/value head h // (H / K). The softmax is float32, products are of the
    pool's type, or float32 in `plain`. Length 0 gives zeros. Entries of the table that a
    slot does not use must name a page. `plain` reads a slot's pages once for all its queries, the
    others for each.
    """
    if kernel == "tpu":
        from rlif_jax.kernels.paged_attention.tpu import paged_attention_tpu as attend
    elif kernel == "gpu":
        from rlif_jax.kernels.paged_attention.gpu import paged_attention_gpu as attend
    else:
        return _paged_attention_plain(q_QHA, k_pages, v_pages, table_BJ, length_Q, first_page)
    table_QJ = jnp.repeat(table_BJ, len(q_QHA) // len(table_BJ), axis=0)
    return attend(q_QHA, k_pages, v_pages, table_QJ, length_Q, first_page)


def _paged_attention_plain(
    q_QHA: Array,
    k_pages: Array,
    v_pages: Array,
    table_BJ: Array,
    length_Q: Array,
    first_page: Array | int,
) -> Array:
    """Page after page, up to the longest slot's last, with a running softmax.

    A page beyond a slot's length changes no bit of its result, so a slot does not depend on the
    lengths of others. What a pass gathers, one page a slot, stays in the processor's cache; of a
    bfloat16 pool it is widened on the way, for products of bfloat16 are slow on CPUs.
    """
    (Q, H, A), (_, K, page, _), B = q_QHA.shape, v_pages.shape, len(table_BJ)
    W = Q // B
    scaled_QHA = q_QHA.astype(jnp.float32) * A**-0.5
    # R: the queries that read one key, of H / K heads and W rows.
    q_BKRA = scaled_QHA.reshape(B, W, K, -1, A).swapaxes(1, 2).reshape(B, K, -1, A)
    length_BR = jnp.repeat(length_Q.reshape(B, W), H // K, axis=1)

    def one_page(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        m_BKR, s0_BKR, out_BKRA = carry
        at_B = first_page + lax.dynamic_index_in_dim(table_BJ, j, axis=1, keepdims=False)
        k_BKAS, v_BKSA = (
            _numbers(p.at[at_B].get(mode="promise_in_bounds")).astype(jnp.float32)
            for p in (k_pages, v_pages)
        )
        z_BKRS = einsum("BKRA,BKAS->BKRS", q_BKRA, k_BKAS)
        seen_BRS = j * page + jnp.arange(page) < length_BR[..., None]
        z_BKRS = jnp.where(seen_BRS[:, None], z_BKRS, _MASKED)
        new_m_BKR = jnp.maximum(m_BKR, z_BKRS.max(axis=-1))
        scale_BKR = jnp.exp(m_BKR - new_m_BKR)
        weight_BKRS = jnp.where(seen_BRS[:, None], jnp.exp(z_BKRS - new_m_BKR[..., None]), 0.0)
        add_BKRA = einsum("BKRS,BKSA->BKRA", weight_BKRS, v_BKSA)
        s0_BKR = s0_BKR * scale_BKR + weight_BKRS.sum(axis=-1)
        return new_m_BKR, s0_BKR, out_BKRA * scale_BKR[..., None] + add_BKRA

    empty = jnp.zeros(q_BKRA.shape[:3], jnp.float32)
    start = (empty + _MASKED, empty, jnp.zeros(q_BKRA.shape, jnp.float32))
    last = (length_Q.max() + page - 1) // page
    _, s0_BKR, out_BKRA = lax.fori_loop(0, last, one_page, start)
    out_BKRA = out_BKRA / jnp.where(s0_BKR > 0, s0_BKR, 1.0)[..., None]
    out_QHA = out_BKRA.reshape(B, K, W, -1, A).swapaxes(1, 2).reshape(Q, H, A)
    return out_QHA.astype(q_QHA.dtype)


def write_token(
    kernel: Kernel,
    k_pages: Array,
    v_pages: Array,
    k_QKA: Array,
    v_QKA: Array,
    page_Q: Array,
    row_Q: Array,
    per_slot: int,
) -> tuple[Array, Array]:
    """Both pools with `per_slot` tokens a slot at row `row_Q` of page `page_Q` (first page added).

    Tokens of different slots are in different pages, except for the null page.
    """
    if kernel == "tpu":
        from rlif_jax.kernels.paged_attention.tpu import write_token_tpu

        for w in range(per_slot):  # those of one slot may share a tile
            one = (x[w::per_slot] for x in (k_QKA, v_QKA, page_Q, row_Q))
            k_pages, v_pages = write_token_tpu(k_pages, v_pages, *one)
        return k_pages, v_pages

    k_QKA, v_QKA = _stored(k_QKA, k_pages), _stored(v_QKA, v_pages)
    if kernel == "plain":
        k_pages = k_pages.at[page_Q, :, :, row_Q].set(k_QKA)
        return k_pages, v_pages.at[page_Q, :, row_Q].set(v_QKA)
    k_pages = k_pages.at[:, page_Q, row_Q].set(k_QKA.swapaxes(0, 1))
    return k_pages, v_pages.at[:, page_Q, row_Q].set(v_QKA.swapaxes(0, 1))


def write_prompt(
    kernel: Kernel,
    k_pages: Array,
    v_pages: Array,
    k_LTKA: Array,
    v_LTKA: Array,
    page_N: Array,
    count: Array,
    pages: int,
) -> tuple[Array, Array]:
    """Both pools with the rows of one prompt, all layers, in its pages `page_N`.

    The prompt fills the first `count` pages of `page_N` [N], N * page = T, as numbered within a
    layer of `pages` pages; what lies behind its last token there is never read. One page after
    another: a scatter would make XLA copy the pool on TPU.
    """
    axis, page, width = page_axis(kernel), v_pages.shape[2], v_pages.shape[3]
    L, _, K, A = k_LTKA.shape

    def in_pages(new_LTKA: Array, pool: Array) -> Array:
        new_LTKA = jnp.pad(new_LTKA, ((0, 0), (0, 0), (0, 0), (0, width - A)))
        return _stored(new_LTKA.reshape(L, -1, page, K, width).swapaxes(2, 3), pool)

    k_LNKPA, v_LNKPA = in_pages(k_LTKA, k_pages), in_pages(v_LTKA, v_pages)
    k_new = k_LNKPA.swapaxes(-1, -2) if kernel == "plain" else k_LNKPA

    def write(i: Array, pools: tuple[Array, Array]) -> tuple[Array, Array]:
        layer, n = i // count, i % count

        def put(pool: Array, new: Array) -> Array:
            one = lax.dynamic_slice(new, (layer, n, 0, 0, 0), (1, 1, *new.shape[2:]))
            at = layer * pages + page_N[n]
            return lax.dynamic_update_index_in_dim(pool, one[0, 0], at, axis)

        return put(pools[0], k_new), put(pools[1], v_LNKPA)

    return lax.fori_loop(0, L * count, write, (k_pages, v_pages))


def copy_pages(
    kernel: Kernel, pool: Array, from_N: Array, to_N: Array, count: Array, layers: int
) -> Array:
    """A pool in which pages `from_N` are copied to `to_N` in every layer: the first `count` of N.

    Pages are numbered within a layer.
    """
    axis = page_axis(kernel)
    pages = pool.shape[axis] // layers

    def copy(i: Array, pool: Array) -> Array:
        layer, n = i // count, i % count
        one = lax.dynamic_index_in_dim(pool, layer * pages + from_N[n], axis)
        return lax.dynamic_update_slice_in_dim(pool, one, layer * pages + to_N[n], axis)

    return lax.fori_loop(0, layers * count, copy, pool)
