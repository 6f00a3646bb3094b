"""The compiled stages of the sampler: prefill, admit, decode a chunk, narrow.

A slot is a row of the decode loop. It holds one sequence after another: `admit` puts a new one into
it, `decode_chunk` runs all slots for some steps and leaves early when the host has something to
do. No shape depends on which sequences are in which slots, so nothing is compiled twice.

Letters beyond `batch.py`'s: B slots, J pages of a slot, K steps of a chunk, N row shards of the
mesh (data x fsdp x context), each with B / N slots, a pool of its own and one prompt being handed
out.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx, struct

from rlif_jax import sharding
from rlif_jax.batch import Array, TokenStats
from rlif_jax.kernels.compiler_options import product_options
from rlif_jax.kernels.precision import head_einsum
from rlif_jax.model.cache import PagedCache, copy, put_prompts
from rlif_jax.sampler.draw import KEY_KIND
from rlif_jax.sampler.filters import NO_FILTERS, Filters, choose

Tree = TypeVar("Tree")


@struct.dataclass
class Slots:
    """What a decode step reads and writes besides the cache.

    `x` [B, D] is the hidden state that predicts a slot's next token; `length` int32 [B] its tokens
    in the cache, prompt included; `drawn` int32 [B] completion tokens so far, `limit` their most;
    `key` uint32 [B, 2] the data of the sequence's key; `live` bool [B], whether there is a
    sequence that continues.
    """

    x: jax.Array
    length: jax.Array
    drawn: jax.Array
    limit: jax.Array
    key: jax.Array
    live: jax.Array


@struct.dataclass
class Admission:
    """Sequences to put into slots, behind the prompts that their row shards hold.

    `fresh` bool [B] marks the slots; `length` int32 [B] tokens of the prompt; `limit`, `key` as in
    `Slots`. On row shard n the pages `copy_from` [B] of its slots' part are copied to `copy_to`,
    the first `copies[n]` of them: a sequence writes behind its prompt's last token, into a page of
    its own.
    """

    fresh: Array
    length: Array
    limit: Array
    key: Array
    copy_from: Array
    copy_to: Array
    copies: Array


@struct.dataclass
class Block:
    """What a chunk has drawn: `tokens` [B, K], `stats` of [B, K] or None, `count` [B] per slot."""

    tokens: Array
    stats: TokenStats | None
    count: Array
    live: Array
    steps: Array


def empty_slots(slots: int, embed: int, dtype: str) -> Slots:
    """Slots without sequences, on the mesh of `jax.set_mesh`."""

    def count():  # each its own buffer: they are donated
        return jnp.zeros(slots, jnp.int32)

    return _placed(
        Slots(
            x=jnp.zeros((slots, embed), dtype),
            length=count(),
            drawn=count(),
            limit=count(),
            key=jnp.zeros((slots, 2), jnp.uint32),
            live=jnp.zeros(slots, bool),
        )
    )


def make_prefill(graphdef: nnx.GraphDef):
    """Build the jitted prefill of one prompt on each row shard.

    `prefill(params, cache, prompt_x, tokens, length, pages, page_count) -> (cache, prompt_x)`:
    `tokens` int32 [N, T] prompts padded on the right to whole pages, `length` int32 [N], `pages`
    int32 [N, T / page] and `page_count` int32 [N] where they go. `prompt_x` [N, D] keeps the
    hidden state behind each shard's last prompt; a shard of length 0 stays as it is. `cache` and
    `prompt_x` are donated.
    """

    def prefill(params, cache, prompt_x, tokens, length, pages, page_count):
        model = nnx.merge(graphdef, params)
        x_NTD, k_LNTKA, v_LNTKA = model.prefill(tokens)
        last_N11 = jnp.maximum(length - 1, 0)[:, None, None]
        x_ND = jnp.take_along_axis(x_NTD, last_N11, axis=1)[:, 0]
        cache = put_prompts(cache, k_LNTKA, v_LNTKA, pages, page_count)
        prompt_x = jnp.where((length > 0)[:, None], x_ND, prompt_x)
        return cache, _placed(prompt_x)

    return jax.jit(prefill, donate_argnums=(1, 2), compiler_options=product_options())


def make_admit():
    """Build the jitted `admit(cache, slots, prompt_x, admission) -> (cache, slots)`; donates both.

    Copies the pages and starts the fresh slots from their row shard's prompt.
    """

    def admit(cache: PagedCache, s: Slots, prompt_x: Array, new: Admission):
        cache = copy(cache, new.copy_from, new.copy_to, new.copies)
        N, B = prompt_x.shape[0], s.live.shape[0]
        x_BD = jnp.repeat(prompt_x, B // N, axis=0)

        def take(new_B, old_B):
            fresh_B = new.fresh.reshape(B, *(1,) * (old_B.ndim - 1))
            return jnp.where(fresh_B, new_B, old_B)

        return cache, _placed(
            Slots(
                x=take(x_BD, s.x),
                length=take(new.length, s.length),
                drawn=take(0, s.drawn),
                limit=take(new.limit, s.limit),
                key=take(new.key, s.key),
                live=s.live | new.fresh,
            )
        )

    return jax.jit(admit, donate_argnums=(0, 1))


def make_decode_chunk(
    graphdef: nnx.GraphDef,
    *,
    steps: int,
    temperature: float,
    filters: Filters = NO_FILTERS,
    eos_ids: tuple[int, ...] | None = None,
    with_stats: bool = True,
):
    """Build the jitted `decode_chunk(params, cache, slots, table, run, leave_after)`.

    It returns (cache, slots, Block) after `steps` steps, or as soon as `leave_after` sequences have
    ended, or none is left. `table` int32 [B, J]; `run` bool [B] leaves out slots that wait for
    pages. A sequence ends with one of `eos_ids` (None: the model's) or at its limit. `cache` and
    `slots` are donated.
    """

    def decode_chunk(params, cache, slots: Slots, table, run, leave_after):
        model = nnx.merge(graphdef, params)
        ends = jnp.asarray(model.cfg.eos_ids if eos_ids is None else eos_ids, jnp.int32)
        B = slots.live.shape[0]
        running = jnp.sum(slots.live & run)

        def restore_position(carry):
            i, _, s, _, _ = carry
            left = jnp.sum(s.live & run)
            return (i < steps) & (left > 0) & (running - left < leave_after)

        def step(carry):
            i, cache, s, tokens_BK, stats_BK = carry
            live_B = s.live & run
            token_B, stats = _draw(model, s, temperature, filters, with_stats)
            tokens_BK, stats_BK = jax.tree.map(
                lambda all_BK, one_B: jax.lax.dynamic_update_slice(all_BK, one_B[:, None], (0, i)),
                (tokens_BK, stats_BK),
                (token_B, stats),
            )
            over_B = jnp.isin(token_B, ends) | (s.drawn + 1 >= s.limit)
            goes_on_B = live_B & ~over_B
            x_BD, cache = model.decode(token_B, cache, table, s.length, goes_on_B)
            s = Slots(
                x=jnp.where(goes_on_B[:, None], x_BD, s.x),
                length=s.length + goes_on_B,
                drawn=s.drawn + live_B,
                limit=s.limit,
                key=s.key,
                live=jnp.where(run, goes_on_B, s.live),
            )
            return i + 1, cache, _placed(s), tokens_BK, stats_BK

        number_BK = jnp.zeros((B, steps), jnp.float32)
        stats_BK = TokenStats(*(number_BK,) * 5) if with_stats else None
        start = (jnp.int32(0), cache, slots, jnp.zeros((B, steps), jnp.int32), stats_BK)
        i, cache, after, tokens_BK, stats_BK = jax.lax.while_loop(restore_position, step, start)
        block = Block(tokens_BK, stats_BK, after.drawn - slots.drawn, after.live, i)
        # The block is for every process to see; the slots go as they came, or the next call would
        # be compiled for others.
        block = jax.tree.map(lambda x: sharding.constrain(x, *(None,) * x.ndim), block)
        return cache, _placed(after), block

    return jax.jit(decode_chunk, donate_argnums=(1, 2))


def make_narrow():
    """Build the jitted `narrow(slots, index) -> slots`: the slots at `index`, in that order.

    Pages stay where they are: only the table's rows move, on the host.
    """

    def narrow(slots: Slots, index: Array) -> Slots:
        return _placed(jax.tree.map(lambda x: jnp.take(x, index, axis=0), slots))

    return jax.jit(narrow)


def _placed(tree: Tree) -> Tree:
    """Arrays whose first axis is that of the slots, or of their shards, on these shards."""

    def place(x: jax.Array) -> jax.Array:
        axes = ("batch", *(None,) * (x.ndim - 1))
        return sharding.constrain(x, *axes, rules=sharding.RULES_DECODE)

    return jax.tree.map(place, tree)


def _draw(model, s: Slots, temperature: float, filters: Filters, with_stats: bool):
    """Each slot's next token, int32 [B], and its TokenStats [B]."""
    head_VD = model.head_VD.astype(s.x.dtype)
    with jax.named_scope("head"):
        logits_BV = head_einsum("BD,VD->BV", s.x, head_VD)
    key_B = jax.random.wrap_key_data(s.key, impl=KEY_KIND)
    return choose(
        logits_BV,
        key_B,
        s.drawn,
        temperature,
        filters,
        reachable=model.cfg.reachable,
        with_stats=with_stats,
    )
