"""The key/value cache: pages of a pool, shared by all sequences of a device."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from rlif_jax import sharding
from rlif_jax.kernels.paged_attention import (
    Kernel,
    choose_kernel,
    copy_pages,
    head_width,
    page_axis,
    paged_attention,
    pool_dtype,
    write_prompt,
    write_token,
)
from rlif_jax.model.config import ModelConfig

Array = jax.Array


@struct.dataclass
class PagedCache:
    """Keys, already rotated, and values, in pages of `page` tokens.

    `k`, `v` are the pools of `kernels.paged_attention`. On a mesh each row shard (data x fsdp) has
    `pages` pages a layer of its own, and its sequences' tables name those; heads are split over
    `tensor`.
    """

    k: Array
    v: Array
    cfg: ModelConfig = struct.field(pytree_node=False)
    kernel: Kernel = struct.field(pytree_node=False)
    pages: int = struct.field(pytree_node=False)

    @property
    def page(self) -> int:
        """Tokens of a page."""
        return self.k.shape[2]


def cached_heads(cfg: ModelConfig, tensor: int) -> int:
    """Key/value heads in the cache where `tensor` devices share them.

    Fewer heads than devices are repeated until each device has the one that its query heads read.
    Where query heads do not divide among the devices, all of them are on every device.
    """
    if cfg.heads % tensor == 0 and tensor % cfg.kv_heads == 0:
        return max(cfg.kv_heads, tensor)
    return cfg.kv_heads


def heads_are_split(cfg: ModelConfig, tensor: int) -> bool:
    """Whether each of `tensor` devices has its own part of the cache's heads."""
    return tensor > 1 and cached_heads(cfg, tensor) % tensor == 0 and cfg.heads % tensor == 0


def kernel_for(
    cfg: ModelConfig, platform: str, tensor: int, page: int, dtype: str, table_entries: int
) -> Kernel:
    """The attention kernel for one device's share of the heads and of the page table."""
    heads, parts = cached_heads(cfg, tensor), tensor if heads_are_split(cfg, tensor) else 1
    return choose_kernel(
        platform, cfg.heads // parts, heads // parts, cfg.head_dim, page, dtype, table_entries
    )


def init_cache(
    cfg: ModelConfig, *, pages: int, page: int, dtype: str | None = None, kernel: Kernel = "plain"
) -> PagedCache:
    """An empty cache on the mesh of `jax.set_mesh`, `pages` pages a layer on each row shard.

    `dtype` None is the activation dtype.
    """
    heads, split = _heads(cfg)
    shape = [heads, page, head_width(kernel, cfg.head_dim)]
    shape.insert(page_axis(kernel), sharding.row_shards() * cfg.layers * pages)
    how = (tuple(shape), pool_dtype(kernel, dtype or cfg.dtype).name, _pool_axes(kernel, split))
    return PagedCache(_zeros(*how), _zeros(*how), cfg, kernel, pages)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shape: tuple[int, ...], dtype: str, axes: tuple[str | None, ...]) -> Array:
    """Zeros of which no device ever makes more than its part."""
    return sharding.constrain(jnp.zeros(shape, dtype), *axes)


class Ends(NamedTuple):
    """Where the next token of each slot goes, int32 [B]: its page, its row there, tokens with it.

    Of slots that are not live: the null page, and no tokens.
    """

    page: Array
    row: Array
    seen: Array


def ends_of(cache: PagedCache, table_BJ: Array, length_B: Array, live_B: Array) -> Ends:
    """The ends of slots that hold `length_B` tokens; they are the same in every layer."""
    column_B = jnp.minimum(length_B // cache.page, table_BJ.shape[1] - 1)
    page_B = jnp.take_along_axis(table_BJ, column_B[:, None], axis=1)[:, 0]
    return Ends(
        page=jnp.where(live_B, page_B, 0),
        row=length_B % cache.page,
        seen=jnp.where(live_B, length_B + 1, 0),
    )


def extend(
    cache: PagedCache,
    layer: Array,
    q_BHA: Array,
    k_BKA: Array,
    v_BKA: Array,
    table_BJ: Array,
    ends: Ends,
) -> tuple[Array, PagedCache]:
    """Put one token at the end of each slot, in one layer, and attend from it: out [B, H, A].

    Slots that are not live give zeros. Slots are split over the row shards of the mesh, in order.
    """
    heads, split = _heads(cache.cfg)
    pool = _pool_axes(cache.kernel, split)
    slots = ("batch",)
    head_axis = "kv_heads" if split else None

    def local(q_BHA, k_BKA, v_BKA, k_pool, v_pool, table_BJ, page_B, row_B, seen_B, layer):
        first = layer * cache.pages
        k_pool, v_pool = write_token(
            cache.kernel, k_pool, v_pool, k_BKA, v_BKA, first + page_B, row_B
        )
        out_BHA = paged_attention(cache.kernel, q_BHA, k_pool, v_pool, table_BJ, seen_B, first)
        return out_BHA, k_pool, v_pool

    per_head = ("batch", head_axis, None)
    run = sharding.on_shards(
        local,
        in_axes=(per_head, per_head, per_head, pool, pool, ("batch", None), *(slots,) * 3, ()),
        out_axes=(per_head, pool, pool),
    )
    k_BKA, v_BKA = (_repeated(x, heads) for x in (k_BKA, v_BKA))
    out_BHA, k, v = run(q_BHA, k_BKA, v_BKA, cache.k, cache.v, table_BJ, *ends, layer)
    return out_BHA, cache.replace(k=k, v=v)


def put_prompts(
    cache: PagedCache,
    k_LNTKA: Array,
    v_LNTKA: Array,
    page_NJ: Array,
    count_N: Array,
) -> PagedCache:
    """Write one prompt on each row shard into its pages: N = row shards, T = J * page columns.

    Prompt n fills the first `count_N[n]` pages of `page_NJ[n]`; 0 leaves its shard as it is.
    """
    heads, split = _heads(cache.cfg)
    pool = _pool_axes(cache.kernel, split)

    def local(k_pool, v_pool, k_LNTKA, v_LNTKA, page_NJ, count_N):
        return tuple(
            write_prompt(cache.kernel, p, x[:, 0], page_NJ[0], count_N[0], cache.pages)
            for p, x in ((k_pool, k_LNTKA), (v_pool, v_LNTKA))
        )

    new = (None, "batch", None, "kv_heads" if split else None, None)
    run = sharding.on_shards(
        local,
        in_axes=(pool, pool, new, new, ("batch", None), ("batch",)),
        out_axes=(pool, pool),
    )
    k_LNTKA, v_LNTKA = (_repeated(x, heads) for x in (k_LNTKA, v_LNTKA))
    k, v = run(cache.k, cache.v, k_LNTKA, v_LNTKA, page_NJ, count_N)
    return cache.replace(k=k, v=v)


def copy(cache: PagedCache, from_B: Array, to_B: Array, count_N: Array) -> PagedCache:
    """Copy pages `from_B` to `to_B` in all layers: on row shard n its first `count_N[n]` ones."""
    _, split = _heads(cache.cfg)
    pool = _pool_axes(cache.kernel, split)

    def local(k_pool, v_pool, from_B, to_B, count_N):
        return tuple(
            copy_pages(cache.kernel, p, from_B, to_B, count_N[0], cache.cfg.layers)
            for p in (k_pool, v_pool)
        )

    slots = ("batch",)
    run = sharding.on_shards(
        local, in_axes=(pool, pool, slots, slots, slots), out_axes=(pool, pool)
    )
    k, v = run(cache.k, cache.v, from_B, to_B, count_N)
    return cache.replace(k=k, v=v)


def _heads(cfg: ModelConfig) -> tuple[int, bool]:
    """Key/value heads in a cache on the current mesh, and whether they are split over `tensor`."""
    tensor = sharding.axis_size("tensor")
    return cached_heads(cfg, tensor), heads_are_split(cfg, tensor)


def _pool_axes(kernel: Kernel, split: bool) -> tuple[str | None, ...]:
    axes: list[str | None] = ["kv_heads" if split else None, None, None]
    axes.insert(page_axis(kernel), "batch")
    return tuple(axes)


def _repeated(x: Array, heads: int) -> Array:
    """Key/value heads, on the last axis but one, each repeated until there are `heads`."""
    return jnp.repeat(x, heads // x.shape[-2], axis=-2)
