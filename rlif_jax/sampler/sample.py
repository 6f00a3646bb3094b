"""Prompts in, Rollout out: prefill once per prompt, then decode all samples together.

Prompts are left-padded, so every row writes the same cache column and a decode step is one
dense program. Decoding runs in jitted chunks; between chunks the host sees which rows have
finished and can hand them on (to the judge, to the progress line) while the rest go on.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from rlif_jax import sharding
from rlif_jax.batch import Array, Prompts, Rollout, TokenStats
from rlif_jax.model.cache import KVCache, init_cache, repeat_rows
from rlif_jax.sampler.draw import row_keys
from rlif_jax.sampler.filters import NO_FILTERS, Filters, choose

CHUNK = 16
"""Decode steps between two looks of the host."""

RowsFinished = Callable[[np.ndarray, list[np.ndarray]], None]
"""Called with the indices of rows that have just finished and their tokens, each cut to length."""


@struct.dataclass
class DecodeState:
    """Everything a decode step reads and writes. B rows, C columns of completion.

    `x` [B, D] is the hidden state that predicts column `t`; `position` int32 [B] the position of
    the token in column t; `done` bool [B]; `tokens` int32, `mask` bool and `stats` [B, C] are
    filled up to column t.
    """

    cache: KVCache
    x: Array
    position: Array
    done: Array
    tokens: Array
    mask: Array
    stats: TokenStats
    key: Array
    t: Array


def make_prefill(graphdef: Any, *, samples_per_prompt: int, max_new_tokens: int, pad_id: int):
    """Build the jitted `prefill(params, prompts, key) -> DecodeState` before column 0."""

    def prefill(params, prompts: Prompts, key: Array) -> DecodeState:
        model = nnx.merge(graphdef, params)
        return _prefill(model, prompts, key, samples_per_prompt, max_new_tokens, pad_id)

    return jax.jit(prefill)


def make_decode_chunk(
    graphdef: Any, *, temperature: float, pad_id: int, filters: Filters = NO_FILTERS
):
    """Build the jitted `decode_chunk(params, state) -> DecodeState`; `state` is donated.

    It goes on for CHUNK columns, or until all rows are done or all columns are filled.
    """

    def decode_chunk(params, state: DecodeState) -> DecodeState:
        model = nnx.merge(graphdef, params)
        stop_at = jnp.minimum(state.t + CHUNK, state.tokens.shape[1])

        def go_on(s):
            return (s.t < stop_at) & ~jnp.all(s.done)

        def body(s):
            return _decode_step(model, s, temperature, filters, pad_id)

        return jax.lax.while_loop(go_on, body, state)

    return jax.jit(decode_chunk, donate_argnums=1)


def make_sample(
    graphdef: Any,
    *,
    samples_per_prompt: int,
    temperature: float,
    max_new_tokens: int,
    pad_id: int,
    filters: Filters = NO_FILTERS,
):
    """Build `sample(params, prompts, key, rows_finished=None) -> Rollout`.

    One program is compiled for each shape of `prompts`. A row's tokens depend on the parameters,
    its prompt, `key` and its index only. Temperature 0 is greedy; `filters` narrow the choice.
    Statistics are of softmax(logits / temperature) before any filter, float32. A completion ends
    with one of the model's `eos_ids`.
    """
    G, C = samples_per_prompt, max_new_tokens
    prefill = make_prefill(graphdef, samples_per_prompt=G, max_new_tokens=C, pad_id=pad_id)
    decode_chunk = make_decode_chunk(
        graphdef, temperature=temperature, pad_id=pad_id, filters=filters
    )

    def sample(
        params, prompts: Prompts, key: Array, rows_finished: RowsFinished | None = None
    ) -> Rollout:
        state = prefill(params, prompts, key)
        known_done = np.zeros(state.done.shape, bool)
        while True:
            state = decode_chunk(params, state)
            done, t = np.asarray(state.done), int(state.t)
            over = t >= C or bool(done.all())
            newly = np.flatnonzero((done | over) & ~known_done)
            if rows_finished is not None and newly.size:
                rows_finished(newly, _completions(state, newly))
            known_done = done
            if over:
                return _rollout(prompts, state, G)

    return sample


def trim(rollout: Rollout, bucket: int) -> Rollout:
    """The rollout without the columns after its longest completion, C a multiple of `bucket`."""
    longest, C = int(rollout.length.max()), rollout.tokens.shape[1]
    columns = min(C, bucket * max(1, -(-longest // bucket)))

    def cut(x_BC):
        return x_BC[:, :columns]

    return rollout.replace(
        tokens=cut(rollout.tokens), mask=cut(rollout.mask), stats=jax.tree.map(cut, rollout.stats)
    )


def _prefill(model, prompts: Prompts, key, G: int, C: int, pad_id: int) -> DecodeState:
    """Run each prompt once and give each of its G samples a copy of the cache."""
    N, P = prompts.tokens.shape
    B = N * G
    cache = init_cache(model.cfg, N, P + C)
    position_NP = jnp.maximum(jnp.cumsum(prompts.mask, axis=1) - 1, 0)
    x_NPD, cache = model.extend(prompts.tokens, position_NP, prompts.mask, cache)
    stats_shape = TokenStats(*(jnp.zeros((B, C), jnp.float32) for _ in range(5)))
    return DecodeState(
        cache=repeat_rows(cache, G),
        x=sharding.constrain(jnp.repeat(x_NPD[:, -1], G, axis=0), "batch", "hidden"),
        position=jnp.repeat(position_NP[:, -1] + 1, G, axis=0),
        done=jnp.zeros(B, bool),
        tokens=jnp.full((B, C), pad_id, jnp.int32),
        mask=jnp.zeros((B, C), bool),
        stats=stats_shape,
        key=row_keys(key, B),
        t=jnp.zeros((), jnp.int32),
    )


def _decode_step(
    model, s: DecodeState, temperature: float, filters: Filters, pad_id: int
) -> DecodeState:
    """Draw column t from `x`, record it, and run the model on it."""
    head_VD = model.head_VD.astype(s.x.dtype)
    logits_BV = jnp.einsum("BD,VD->BV", s.x, head_VD, preferred_element_type=jnp.float32)
    token_B, stats = choose(
        logits_BV, s.key, s.t, temperature, filters, reachable=model.cfg.reachable
    )
    live_B = ~s.done
    token_B = jnp.where(live_B, token_B, pad_id)

    def put(array_BC, value_B):
        value_B = jnp.where(live_B, value_B, jnp.zeros((), array_BC.dtype))
        return jax.lax.dynamic_update_slice(array_BC, value_B[:, None], (0, s.t))

    is_eos_B = jnp.isin(token_B, jnp.asarray(model.cfg.eos_ids, jnp.int32))
    x_B1D, cache = model.extend(token_B[:, None], s.position[:, None], live_B[:, None], s.cache)
    return s.replace(
        cache=cache,
        x=x_B1D[:, 0],
        position=s.position + 1,
        done=s.done | is_eos_B,
        tokens=jax.lax.dynamic_update_slice(s.tokens, token_B[:, None], (0, s.t)),
        mask=put(s.mask, live_B),
        stats=jax.tree.map(put, s.stats, stats),
        t=s.t + 1,
    )


def _completions(state: DecodeState, rows: np.ndarray) -> list[np.ndarray]:
    """Tokens of these rows, each cut to its length."""
    tokens, lengths = np.asarray(state.tokens), np.asarray(state.mask).sum(axis=1)
    return [tokens[row, : lengths[row]] for row in rows]


def _rollout(prompts: Prompts, state: DecodeState, G: int) -> Rollout:
    return Rollout(
        prompt_tokens=jnp.repeat(prompts.tokens, G, axis=0),
        prompt_mask=jnp.repeat(prompts.mask, G, axis=0),
        tokens=state.tokens,
        mask=state.mask,
        stats=state.stats,
        truncated=~state.done,
        length=state.mask.sum(axis=1, dtype=jnp.int32),
    )
