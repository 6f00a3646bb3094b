"""The compiled stages of the sampler: prefill, admit, decode a chunk, narrow.

A slot is a row of the decode loop. It holds one sequence after another: `admit` puts a new one into
it, `decode_chunk` runs all slots for some steps and leaves early when the host has something to
do. No shape depends on which sequences are in which slots, so nothing is compiled twice.

With drafts (speculative decoding) a step draws W tokens of each slot: the next one, and those that
come after it if W - 1 guesses are right. Each is drawn as ever, from its own key and number. Kept
are those up to the first that a guess has got wrong, which are the tokens that one step after
another would have drawn: the distribution is the same whatever the guesses.

Letters beyond `batch.py`'s: B slots, J pages of a slot, K tokens that a slot draws at most in a
chunk, W tokens that it draws at most in a step, N row shards of the mesh (data x fsdp x context),
each with B / N slots, a pool of its own and one prompt being handed out.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Array, TokenStats
from rlif_jax.kernels.compiler_options import product_options
from rlif_jax.kernels.precision import head_einsum
from rlif_jax.model.cache import PagedCache, copy, put_prompts
from rlif_jax.sampler.drafts import CONTEXT, NONE, fed, learn
from rlif_jax.sampler.draw import KEY_KIND
from rlif_jax.sampler.filters import NO_FILTERS, Filters, choose
from rlif_jax.sampler.slots import Admission, Block, Slots, placed


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
        return cache, placed(prompt_x)

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

        drafts = s.drafts
        if drafts is not None and new.prompt is not None:
            text_N1T = jnp.pad(new.prompt, ((0, 0), (CONTEXT, 0)), constant_values=NONE)[:, None]
            recent_BR = jnp.repeat(new.prompt[:, -CONTEXT:], B // N, axis=0)
            drafts = replace(
                drafts,
                token=take(NONE, drafts.token),
                recent=take(recent_BR, drafts.recent),
                following=learn(drafts.following, text_N1T, text_N1T >= 0),
            )
        return cache, placed(
            Slots(
                x=take(x_BD, s.x),
                length=take(new.length, s.length),
                drawn=take(0, s.drawn),
                limit=take(new.limit, s.limit),
                key=take(new.key, s.key),
                live=s.live | new.fresh,
                drafts=drafts,
            )
        )

    return jax.jit(admit, donate_argnums=(0, 1))


def make_decode_chunk(
    graphdef: nnx.GraphDef,
    *,
    tokens: int,
    temperature: float,
    filters: Filters = NO_FILTERS,
    eos_ids: tuple[int, ...] | None = None,
    with_stats: bool = True,
    drafts: int = 0,
):
    """Build the jitted `decode_chunk(params, cache, slots, table, run, leave_after)`.

    It returns (cache, slots, Block) after `tokens` // (1 + `drafts`) steps, or as soon as
    `leave_after` sequences have ended, or none is left. `table` int32 [B, J]; `run` bool [B] leaves
    out slots that wait for pages. A sequence ends with one of `eos_ids` (None: the model's) or at
    its limit. `cache` and `slots` are donated.
    """
    K, W = tokens, 1 + drafts

    def decode_chunk(params, cache, slots: Slots, table, run, leave_after):
        model = nnx.merge(graphdef, params)
        ends = jnp.asarray(model.cfg.eos_ids if eos_ids is None else eos_ids, jnp.int32)
        B = slots.live.shape[0]
        running = jnp.sum(slots.live & run)
        # Of each slot, the tokens for which it has pages.
        room_B = jnp.minimum(slots.drawn + K, slots.limit)

        def proceed(carry):
            i, _, s, _, _ = carry
            left = jnp.sum(s.live & run)
            return (i < K // W) & (left > 0) & (running - left < leave_after)

        def step(carry):
            i, cache, s, tokens_BK, stats_BK = carry
            live_B = s.live & run
            token_BW, stats_BW = _draw(model, s, temperature, filters, with_stats)
            tokens_BK, stats_BK = jax.tree.map(
                lambda all_BK, new_BW: _put(all_BK, new_BW, s.drawn - slots.drawn),
                (tokens_BK, stats_BK),
                (token_BW, stats_BW),
            )
            kept_B, over_B = _kept(s, token_BW, ends)
            goes_on_B = live_B & ~over_B
            # Right guesses are in the cache. The last token that is kept is not yet, and goes there
            # with the next guesses behind it.
            fed_BW, drafts = token_BW, s.drafts
            if drafts is not None:
                guessable_BW = _guessable(s, kept_B, room_B)
                fed_BW, drafts = fed(drafts, token_BW, kept_B, live_B, guessable_BW)
            position_BW = (s.length + kept_B - 1)[:, None] + jnp.arange(W)
            feed_BW = goes_on_B[:, None] & (fed_BW >= 0)
            rows_BW = jnp.maximum(fed_BW, 0), position_BW, feed_BW
            token_Q, position_Q, feed_Q = (x_BW.reshape(-1) for x_BW in rows_BW)
            x_QD, cache = model.decode(token_Q, cache, table, position_Q, feed_Q)
            x_BWD = x_QD.reshape(B, W, -1)
            s = Slots(
                x=jnp.where(goes_on_B[:, None], x_BWD[:, 0], s.x),
                length=s.length + jnp.where(goes_on_B, kept_B, 0),
                drawn=s.drawn + jnp.where(live_B, kept_B, 0),
                limit=s.limit,
                key=s.key,
                live=jnp.where(run, goes_on_B, s.live),
                drafts=None if drafts is None else replace(drafts, x=x_BWD[:, 1:]),
            )
            return i + 1, cache, placed(s), tokens_BK, stats_BK

        number_BK = jnp.zeros((B, K), jnp.float32)
        stats_BK = TokenStats(*(number_BK,) * 5) if with_stats else None
        start = (jnp.int32(0), cache, slots, jnp.zeros((B, K), jnp.int32), stats_BK)
        i, cache, after, tokens_BK, stats_BK = jax.lax.while_loop(proceed, step, start)
        count_B = passes_B = after.drawn - slots.drawn
        if after.drafts is not None and slots.drafts is not None:
            passes_B = after.drafts.passes - slots.drafts.passes
        block = Block(tokens_BK, stats_BK, count_B, passes_B, after.live, i)
        # The block is for every process to see; the slots go as they came, or the next call would
        # be compiled for others.
        block = jax.tree.map(lambda x: sharding.constrain(x, *(None,) * x.ndim), block)
        return cache, placed(after), block

    return jax.jit(decode_chunk, donate_argnums=(1, 2))


def make_narrow():
    """Build the jitted `narrow(slots, index) -> slots`: the slots at `index`, in that order.

    Pages stay where they are: only the table's rows move, on the host.
    """

    def narrow(slots: Slots, index: Array) -> Slots:
        kept = jax.tree.map(lambda x: jnp.take(x, index, axis=0), slots)
        if slots.drafts is not None:  # but for the table, which is a row shard's
            drafts = replace(kept.drafts, following=slots.drafts.following)
            kept = replace(kept, drafts=drafts)
        return placed(kept)

    return jax.jit(narrow)


def _draw(model, s: Slots, temperature: float, filters: Filters, with_stats: bool):
    """Each slot's next W tokens [B, W], if its guesses are right, and their TokenStats [B, W]."""
    x_BWD = s.x[:, None]
    if s.drafts is not None:
        x_BWD = jnp.concatenate([x_BWD, s.drafts.x], axis=1)
    B, W, D = x_BWD.shape
    head_VD = model.head_VD.astype(s.x.dtype)
    with jax.named_scope("head"):
        logits_QV = head_einsum("QD,VD->QV", x_BWD.reshape(-1, D), head_VD)
    number_BW = s.drawn[:, None] + jnp.arange(W)
    drawn = choose(
        logits_QV,
        jax.random.wrap_key_data(jnp.repeat(s.key, W, axis=0), impl=KEY_KIND),
        number_BW.reshape(-1),
        temperature,
        filters,
        reachable=model.cfg.reachable,
        with_stats=with_stats,
    )
    return jax.tree.map(lambda x_Q: x_Q.reshape(B, W), drawn)


def _put(all_BK: Array, new_BW: Array, at_B: Array) -> Array:
    """`all_BK` with W new columns, from column `at_B` of each row on."""
    place_BK = jnp.arange(all_BK.shape[1]) - at_B[:, None]
    for w in range(new_BW.shape[1]):
        all_BK = jnp.where(place_BK == w, new_BW[:, w, None], all_BK)
    return all_BK


def _kept(s: Slots, token_BW: Array, ends: Array) -> tuple[Array, Array]:
    """How many of the tokens that it has drawn each slot keeps, int32 [B]; if its sequence ends."""
    number_BW = s.drawn[:, None] + 1 + jnp.arange(token_BW.shape[1])
    last_BW = jnp.isin(token_BW, ends) | (number_BW >= s.limit[:, None])
    if s.drafts is None:
        return jnp.ones_like(s.drawn), last_BW[:, 0]
    right_BW = (token_BW[:, :-1] == s.drafts.token) & ~last_BW[:, :-1]
    kept_B = 1 + jnp.cumprod(right_BW, axis=1).sum(axis=1)
    return kept_B, jnp.take_along_axis(last_BW, kept_B[:, None] - 1, axis=1)[:, 0]


def _guessable(s: Slots, kept_B: Array, room_B: Array) -> Array:
    """Which of the next W - 1 guesses a slot has a page for, and a token may follow, [B, W - 1]."""
    assert s.drafts is not None
    number_BW = (s.drawn + kept_B)[:, None] + jnp.arange(s.drafts.token.shape[1])
    return (number_BW < room_B[:, None]) & (number_BW + 1 < s.limit[:, None])
