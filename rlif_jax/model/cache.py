"""The key/value cache of the decode loop.

All rows share one column counter: prompts are padded on the left, so every row's next token goes
into the same column, and one `dynamic_update_slice` writes a new column of all rows.
"""

import jax
import jax.numpy as jnp
from flax import struct

from rlif_jax.model.config import ModelConfig

Array = jax.Array


@struct.dataclass
class KVCache:
    """Keys and values of the columns seen so far.

    `k`, `v` [L, B, S, K, A] in the activation dtype, keys already rotated; `mask` bool [B, S], true
    where a slot holds a real token; `length` int32 [], the number of columns filled, the same for
    all rows.
    """

    k: Array
    v: Array
    mask: Array
    length: Array


def init_cache(cfg: ModelConfig, batch: int, columns: int, dtype: str | None = None) -> KVCache:
    """An empty cache; `dtype` None is the activation dtype."""
    shape = (cfg.layers, batch, columns, cfg.kv_heads, cfg.head_dim)
    dtype = jnp.dtype(dtype or cfg.dtype)
    return KVCache(
        k=jnp.zeros(shape, dtype),
        v=jnp.zeros(shape, dtype),
        mask=jnp.zeros((batch, columns), bool),
        length=jnp.zeros((), jnp.int32),
    )


def repeat_rows(cache: KVCache, group_size: int) -> KVCache:
    """Each prompt's rows repeated for its G samples: N rows become B = N * G, row = n * G + g."""
    return cache.replace(
        k=jnp.repeat(cache.k, group_size, axis=1),
        v=jnp.repeat(cache.v, group_size, axis=1),
        mask=jnp.repeat(cache.mask, group_size, axis=0),
    )
