"""The key/value cache: pages of a pool, shared by all sequences of a device.

Letters beyond `batch.py`'s: B slots, J pages of a slot, Q = B * W new tokens, W of each slot.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rlif_jax import sharding
from rlif_jax.kernels.paged_attention.api import (
    Kernel,
    choose_kernel,
    copy_pages,
    page_axis,
    paged_attention,
    pool_dtype,
    pool_shapes,
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
        return self.v.shape[2]


def cached_heads(cfg: ModelConfig, tensor: int) -> int:
    """Key/value heads in the cache where `tensor` devices share them.

    Fewer heads than devices are repeated until each device has the one that its query heads read.
    """
    return max(cfg.kv_heads, tensor)


def heads_of_device(cfg: ModelConfig, tensor: int) -> tuple[int, int]:
    """Query heads, and key/value heads of the cache, on each of `tensor` devices.

    They divide: `placement.check_mesh` refuses other meshes.
    """
    return cfg.heads // tensor, cached_heads(cfg, tensor) // tensor


def kernel_for(
    cfg: ModelConfig, platform: str, tensor: int, page: int, dtype: str, table_entries: int
) -> Kernel:
    """The attention kernel for one device's share of the heads and of the page table."""
    return choose_kernel(
        platform, *heads_of_device(cfg, tensor), cfg.head_dim, page, dtype, table_entries
    )


def init_cache(
    cfg: ModelConfig, *, pages: int, page: int, dtype: str | None = None, kernel: Kernel = "plain"
) -> PagedCache:
    """An empty cache on the mesh of `jax.set_mesh`, `pages` pages a layer on each row shard.

    `dtype` None is the activation dtype.
    """
    heads = cached_heads(cfg, sharding.axis_size("tensor"))
    everywhere = sharding.slot_shards() * cfg.layers * pages
    k, v = (
        _zeros(shape, pool_dtype(kernel, dtype or cfg.dtype).name, _pool_axes(kernel))
        for shape in pool_shapes(kernel, heads, everywhere, page, cfg.head_dim)
    )
    return PagedCache(k, v, cfg, kernel, pages)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shape: tuple[int, ...], dtype: str, axes: tuple[str | None, ...]) -> Array:
    """Zeros, of which each device allocates its own part only."""
    return sharding.constrain(jnp.zeros(shape, dtype), *axes, rules=sharding.RULES_DECODE)


class Ends(NamedTuple):
    """Where new tokens of the slots go, int32 [Q]: page, row there, tokens of the slot up to it.

    Of those that are not live: the null page, and no tokens.
    """

    page: Array
    row: Array
    seen: Array


def ends_of(cache: PagedCache, table_BJ: Array, position_Q: Array, live_Q: Array) -> Ends:
    """The ends of new tokens at these positions of the slots; they are the same in every layer."""
    column_Q = jnp.minimum(position_Q // cache.page, table_BJ.shape[1] - 1)
    page_BW = jnp.take_along_axis(table_BJ, column_Q.reshape(len(table_BJ), -1), axis=1)
    return Ends(
        page=jnp.where(live_Q, page_BW.reshape(-1), 0),
        row=position_Q % cache.page,
        seen=jnp.where(live_Q, position_Q + 1, 0),
    )


@jax.named_scope("attention")
def extend(
    cache: PagedCache,
    layer: Array,
    q_QHA: Array,
    k_QKA: Array,
    v_QKA: Array,
    table_BJ: Array,
    ends: Ends,
) -> tuple[Array, PagedCache]:
    """Put W new tokens behind each slot's, in one layer, and attend from them: out [Q, H, A].

    Row b * W + w is the w-th of slot b, and sees those before it. Tokens that are not live give
    zeros. Slots are split over the row shards of the mesh, in order.
    """
    per_slot = len(q_QHA) // len(table_BJ)

    def on_device(k_pool, v_pool, q_QHA, k_QKA, v_QKA, table_BJ, page_Q, row_Q, seen_Q, layer):
        first = layer * cache.pages
        k_pool, v_pool = write_token(
            cache.kernel, k_pool, v_pool, k_QKA, v_QKA, first + page_Q, row_Q, per_slot
        )
        out_QHA = paged_attention(cache.kernel, q_QHA, k_pool, v_pool, table_BJ, seen_Q, first)
        return k_pool, v_pool, out_QHA

    per_head = ("batch", "kv_heads", None)
    cache, out_QHA = _on_pools(
        cache,
        on_device,
        (*(per_head,) * 3, ("batch", None), *(("batch",),) * 3, ()),
        (q_QHA, _repeated(k_QKA, cache.cfg), _repeated(v_QKA, cache.cfg), table_BJ, *ends, layer),
        (per_head,),
    )
    return out_QHA, cache


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

    def on_device(k_pool, v_pool, k_LNTKA, v_LNTKA, page_NJ, count_N):
        new = k_LNTKA[:, 0], v_LNTKA[:, 0]
        return write_prompt(cache.kernel, k_pool, v_pool, *new, page_NJ[0], count_N[0], cache.pages)

    new = (None, "batch", None, "kv_heads", None)
    (cache,) = _on_pools(
        cache,
        on_device,
        (new, new, ("batch", None), ("batch",)),
        (_repeated(k_LNTKA, cache.cfg), _repeated(v_LNTKA, cache.cfg), page_NJ, count_N),
    )
    return cache


def copy(
    cache: PagedCache,
    from_B: Array | np.ndarray,
    to_B: Array | np.ndarray,
    count_N: Array | np.ndarray,
) -> PagedCache:
    """Copy pages `from_B` to `to_B` in all layers: on row shard n its first `count_N[n]` ones."""

    def on_device(k_pool, v_pool, from_B, to_B, count_N):
        return tuple(
            copy_pages(cache.kernel, p, from_B, to_B, count_N[0], cache.cfg.layers)
            for p in (k_pool, v_pool)
        )

    (cache,) = _on_pools(cache, on_device, (("batch",),) * 3, (from_B, to_B, count_N))
    return cache


def _on_pools(cache: PagedCache, f: Callable, axes: tuple, args: tuple, more_axes: tuple = ()):
    """(cache, *more) of `f(k_pool, v_pool, *args) -> (k_pool, v_pool, *more)`.

    `f` sees a device's own part of the pools and of the arguments, whose axes have these names.
    """
    pool = _pool_axes(cache.kernel)
    run = sharding.on_shards(f, (pool, pool, *axes), (pool, pool, *more_axes))
    k, v, *more = run(cache.k, cache.v, *args)
    return dataclasses.replace(cache, k=k, v=v), *more


def _pool_axes(kernel: Kernel) -> tuple[str | None, ...]:
    axes: list[str | None] = ["kv_heads", None, None]
    axes.insert(page_axis(kernel), "batch")
    return tuple(axes)


def _repeated(x: Array, cfg: ModelConfig) -> Array:
    """Key/value heads, on the last axis but one, each repeated as often as in the cache."""
    heads = cached_heads(cfg, sharding.axis_size("tensor"))
    return jnp.repeat(x, heads // x.shape[-2], axis=-2)
