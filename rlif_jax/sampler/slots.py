"""What the sampler's stages hand each other beside the cache; letters as in `decode.py`."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from rlif_jax import sharding
from rlif_jax.batch import Array, TokenStats
from rlif_jax.sampler.drafts import Drafts, no_drafts

Tree = TypeVar("Tree")


@struct.dataclass
class Slots:
    """What a decode step reads and writes besides the cache.

    `x` [B, D] is the hidden state that predicts a slot's next token; `length` int32 [B] its tokens
    in the cache, prompt included; `drawn` int32 [B] completion tokens so far, `limit` their most;
    `key` uint32 [B, 2] the data of the sequence's key; `live` bool [B], whether there is a
    sequence that continues; `drafts` None if nothing is guessed.
    """

    x: jax.Array
    length: jax.Array
    drawn: jax.Array
    limit: jax.Array
    key: jax.Array
    live: jax.Array
    drafts: Drafts | None = None


@struct.dataclass
class Admission:
    """Sequences to put into slots, behind the prompts that their row shards hold.

    `fresh` bool [B] marks the slots; `length` int32 [B] tokens of the prompt; `limit`, `key` as in
    `Slots`. On row shard n the pages `copy_from` [B] of its slots' part are copied to `copy_to`,
    the first `copies[n]` of them: a sequence writes behind its prompt's last token, into a page of
    its own. `prompt` int32 [N, T], for drafts: the prompt behind which shard n's sequences start,
    at the end of its row, with `drafts.NONE` before it.
    """

    fresh: Array
    length: Array
    limit: Array
    key: Array
    copy_from: Array
    copy_to: Array
    copies: Array
    prompt: Array | None = None


@struct.dataclass
class Block:
    """What a chunk has drawn: `tokens` [B, K], `stats` of [B, K] or None, `count` [B] per slot.

    `passes` int32 [B]: the steps in which a slot drew them.
    """

    tokens: Array
    stats: TokenStats | None
    count: Array
    passes: Array
    live: Array
    steps: Array


def empty_slots(slots: int, embed: int, dtype: str, drafts: int = 0) -> Slots:
    """Slots without sequences, on the mesh of `jax.set_mesh`; `drafts` tokens are guessed ahead."""

    def count():  # each its own buffer: they are donated
        return jnp.zeros(slots, jnp.int32)

    return placed(
        Slots(
            x=jnp.zeros((slots, embed), dtype),
            length=count(),
            drawn=count(),
            limit=count(),
            key=jnp.zeros((slots, 2), jnp.uint32),
            live=jnp.zeros(slots, bool),
            drafts=no_drafts(slots, embed, dtype, drafts) if drafts else None,
        )
    )


def placed(tree: Tree) -> Tree:
    """Arrays whose first axis is that of the slots, or of their shards, on these shards."""

    def place(x: jax.Array) -> jax.Array:
        axes = ("batch", *(None,) * (x.ndim - 1))
        return sharding.constrain(x, *axes, rules=sharding.RULES_DECODE)

    return jax.tree.map(place, tree)
