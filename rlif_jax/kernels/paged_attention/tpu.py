"""Decode attention over a paged KV cache on TPU, and the write of a step's keys and values into it.

Attention is JAX's own kernel, `jax.experimental.pallas.ops.tpu.paged_attention`, which takes the
pool of pages as it lies: the pages of a layer are named by adding the layer's first page to the
page table, so no layer of the pool is ever sliced out. The write is a kernel of its own, because
XLA's scatter copies the pool for it, and a loop of `dynamic_update_slice` takes a step a slot.

Everything here sees local arrays: on a mesh it is called inside `jax.shard_map`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention

from rlif_jax.errors import UserError
from rlif_jax.kernels.precision import matmul_precision

Array = jax.Array

_LANES = 128  # of a vector register: a head fills whole lanes
_ROWS = 16  # of a page that are written back together: a bfloat16 tile of 16 x 128 holds pairs

# The kernel loads this many tokens at a time (256 KiB of bfloat16 keys and values of one head of
# width 128, twice). A slot loads whole blocks, so a longer block would load more beyond its end.
_BLOCK_TOKENS = 512

# The page table lies in scalar memory, 1 MiB on a v5e core, beside the lengths and a few kB of the
# kernel's own.
_TABLE_ENTRIES = (2**20 - 2**17) // 4

# Of vector memory, for the tiles that one step of the write holds (the default limit is 16 MiB).
_WRITE_BYTES = 2**21


def tpu_head_width(head_dim: int) -> int:
    """The width of a head in the cache on a TPU: whole lanes of 128, the rest of them zeros.

    A row of 64 takes as much memory there, and XLA would rather lay such a pool out pages last,
    where no page lies in one piece.
    """
    return -(-head_dim // _LANES) * _LANES


def tpu_kernel_fits(
    heads: int,
    kv_heads: int,
    width: int,
    page: int,
    dtype: jnp.dtype,
    table_entries: int = 0,
) -> bool:
    """Whether `paged_attention_tpu` and `write_token_tpu` take a cache of this form.

    `heads` and `kv_heads` are one device's; `width` (of a head) and `dtype` are the cache's, see
    `tpu_head_width`; `table_entries` is slots times pages of a slot, on one device. A page must
    fill whole tiles of 16 rows. A float32 cache is refused: the kernel rounds keys and values to
    bfloat16.
    """
    return (
        heads % kv_heads == 0
        and width % _LANES == 0
        and page % _ROWS == 0
        and jnp.dtype(dtype) == jnp.bfloat16
        and table_entries <= _TABLE_ENTRIES
    )


def _check(heads: int, head_dim: int, pages: Array, table_entries: int = 0) -> None:
    kv_heads, _, page, width = pages.shape
    fits = tpu_kernel_fits(heads, kv_heads, width, page, pages.dtype, table_entries)
    if not fits or width != tpu_head_width(head_dim):
        raise UserError(
            "Paged attention on a TPU supports bfloat16 caches with pages of a multiple of "
            f"{_ROWS} tokens, heads of a multiple of {_LANES} in width, and a page table of at "
            f"most {_TABLE_ENTRIES} entries. This {pages.dtype} cache has pages of {page} "
            f"tokens, {kv_heads} key/value heads of width {width} for {heads} query heads of width "
            f"{head_dim}, and {table_entries} entries. Use the plain kernel for it."
        )


def _fill_lanes(x: Array) -> Array:
    """Heads [..., A] filled with zeros to `tpu_head_width(A)`."""
    A = x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, tpu_head_width(A) - A)])


def paged_attention_tpu(
    q_BHA: Array,
    k_pages: Array,
    v_pages: Array,
    table_BJ: Array,
    length_B: Array,
    first_page: Array | int,
) -> Array:
    """Attention of one query a slot over the tokens in the slot's pages of one layer.

    Args:
        q_BHA: query heads [B, H, A], not scaled; query head h reads kv head h // (H // K).
        k_pages: keys [K, S, page, W], bfloat16, of all layers, W = `tpu_head_width(A)`.
        v_pages: values, likewise.
        table_BJ: int32 [B, J], page j of slot b as numbered within a layer. Entries that a slot
            does not use are loaded too, and masked: they must name a page (0, say) of finite rows.
        length_B: int32 [B], tokens of a slot, the one just written among them, at most J * page.
        first_page: int32 scalar, may be traced: the layer's first page in the pool.

    Returns:
        [B, H, A] in the dtype of `q_BHA`: softmax(q . k / sqrt(A)) . v, with the softmax and its
        sums in float32 and products of bfloat16, also for a float32 query; zeros where the length
        is 0.

    Raises:
        UserError: `tpu_kernel_fits` is false.
    """
    (_, H, A), (_, _, page, _), (_, J) = q_BHA.shape, k_pages.shape, table_BJ.shape
    pages_per_block = min(max(1, _BLOCK_TOKENS // page), J)
    # Blocks are whole: the table is filled up with the null page.
    table_BJ = jnp.pad(table_BJ, ((0, 0), (0, -J % pages_per_block)))
    _check(H, A, k_pages, table_BJ.size)
    # The precision of the cache's type. Mosaic compiles no other one for bfloat16 keys.
    with jax.default_matmul_precision(matmul_precision(k_pages.dtype).name.lower()):
        out_BHA = paged_attention(
            # In float32, because the kernel keeps its running output in the dtype of the query.
            _fill_lanes(q_BHA.astype(jnp.float32) * A**-0.5),
            k_pages,
            v_pages,
            length_B,
            table_BJ + first_page,
            pages_per_compute_block=pages_per_block,
        )
    return out_BHA[..., :A].astype(q_BHA.dtype)


def write_token_tpu(
    k_pages: Array, v_pages: Array, k_BKA: Array, v_BKA: Array, page_B: Array, row_B: Array
) -> tuple[Array, Array]:
    """Both pools with one token a slot written at its page and row, in place where donated.

    Args:
        k_pages: keys [K, S, page, W], bfloat16, W = `tpu_head_width(A)`.
        v_pages: values, likewise.
        k_BKA: the tokens' keys [B, K, A].
        v_BKA: the tokens' values, likewise.
        page_B: int32 [B], pages of the pool (the layer's first page added).
        row_B: int32 [B], rows of these pages.

    Slots must write to different pages, except that any number may write to pages that are never
    read: a tile of 16 rows is read, changed and written back for every slot, all slots at once, so
    that of two slots in one tile one would be lost.

    Raises:
        UserError: `tpu_kernel_fits` is false.
    """
    B, K, A = k_BKA.shape
    W = tpu_head_width(A)
    _check(K, A, k_pages)
    slot_bytes = 2 * K * _ROWS * W * k_pages.dtype.itemsize
    block = max(n for n in range(1, B + 1) if B % n == 0 and n * slot_bytes <= _WRITE_BYTES)
    tiles = pltpu.VMEM((block, K, _ROWS, W), k_pages.dtype)
    new = pl.BlockSpec((block, K, W), lambda i, *_: (i, 0, 0))
    pool = pl.BlockSpec(memory_space=pl.ANY)
    tokens = (_fill_lanes(x).astype(k_pages.dtype) for x in (k_BKA, v_BKA))
    return pl.pallas_call(
        functools.partial(_write_kernel, block=block),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(B // block,),
            in_specs=[new, new, pool, pool],
            out_specs=[pool, pool],
            scratch_shapes=[tiles, tiles, pltpu.SemaphoreType.DMA],
        ),
        out_shape=[jax.ShapeDtypeStruct(p.shape, p.dtype) for p in (k_pages, v_pages)],
        input_output_aliases={4: 0, 5: 1},  # counted with the two prefetched arguments
        name="write_token",
    )(page_B, row_B, *tokens, k_pages, v_pages)


def _write_kernel(page_ref, row_ref, k_ref, v_ref, _k, _v, k_pool, v_pool, *scratch, block):
    """Load the tile of 16 rows around each slot's row, put the row into it, store it back."""
    k_tiles, v_tiles, semaphore = scratch
    first = pl.program_id(0) * block
    sides = ((k_ref, k_pool, k_tiles), (v_ref, v_pool, v_tiles))

    def each_slot(act):
        lax.fori_loop(0, block, lambda b, _: act(b), None)

    def each_copy(act, store):
        def of_slot(b):
            start = pl.multiple_of(lax.div(row_ref[first + b], _ROWS) * _ROWS, _ROWS)
            for _, pool, tiles in sides:
                rows = pool.at[:, page_ref[first + b], pl.ds(start, _ROWS), :]
                ends = (tiles.at[b], rows) if store else (rows, tiles.at[b])
                act(pltpu.make_async_copy(*ends, semaphore))

        each_slot(of_slot)

    def put(b):
        row = lax.rem(row_ref[first + b], _ROWS)
        for new, _, tiles in sides:
            here = lax.broadcasted_iota(jnp.int32, tiles.shape[1:], 1) == row
            # Selected in float32, which vector units without bfloat16 can do; nothing is rounded.
            old = tiles[b].astype(jnp.float32)
            token = new[b].astype(jnp.float32)[:, None, :]
            tiles[b] = jnp.where(here, token, old).astype(tiles.dtype)

    def start(copy):
        copy.start()

    def wait(copy):
        copy.wait()

    each_copy(start, store=False)
    each_copy(wait, store=False)
    each_slot(put)
    each_copy(start, store=True)
    each_copy(wait, store=True)
