"""Prompts in, Rollout out: what a training step samples with."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.data.prompts import pad_prompts
from rlif_jax.sampler.draw import key_data, row_keys
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.pool_shape import pool_shape
from rlif_jax.sampler.requests import Finished, Request, Stop

RowsFinished = Callable[[np.ndarray, list[np.ndarray]], None]
"""Callback after each chunk: the indices of the rows that it has finished, often none, and their
tokens, each cut to length."""


def make_sample(
    engine: Engine,
    *,
    samples_per_prompt: int,
    max_new_tokens: int,
    pad_id: int,
    max_prompt_tokens: int = 0,
    stop: Stop | None = None,
):
    """Build `sample(params, prompts, key, rows_finished=None) -> (Rollout, Usage)`.

    `prompts` are N lists of token ids. The stages of the engine are compiled once if all have at
    most `max_prompt_tokens` tokens (0: those of the first call set the size; longer ones compile
    again). A row's tokens depend on the parameters, its prompt, `key` and its index only.
    Statistics are of softmax(logits / temperature) before any filter, float32. A completion ends
    with one of the model's `eos_ids`, or where `stop` says (see `sampler.stop`). The rollout lies
    on the host, in P = `max_prompt_tokens` and C = `max_new_tokens` columns whatever its lengths.
    """
    G, C = samples_per_prompt, max_new_tokens
    widest, shapes = max_prompt_tokens, {}

    def sample(
        params,
        prompts: Sequence[Sequence[int]],
        key: jax.Array,
        rows_finished: RowsFinished | None = None,
    ) -> tuple[Rollout, Usage]:
        nonlocal widest
        B, usage = len(prompts) * G, Usage()
        widest = max(widest, *map(len, prompts))
        keys = key_data(row_keys(key, B))
        if (B, widest) not in shapes:  # once: what is free changes, what is compiled must not
            cfg = nnx.merge(engine.graphdef, params).cfg
            shapes[B, widest] = pool_shape(
                cfg, engine.batching, prompt=widest, new=C, samples=G, sequences=B
            )
        requests = [Request(row // G, keys[row], C) for row in range(B)]
        done: list[Finished] = []
        for finished in engine.run(
            params, prompts, requests, shape=shapes[B, widest], stop=stop, usage=usage
        ):
            done += finished
            if rows_finished is not None:
                rows = np.asarray([one.request for one in finished], int)
                rows_finished(rows, [one.tokens for one in finished])
        done.sort(key=lambda one: one.request)
        return _rollout(pad_prompts(prompts, pad_id, widest), done, C, pad_id), usage

    return sample


def _rollout(prompts: Prompts, done: list[Finished], C: int, pad_id: int) -> Rollout:
    """Finished rows one below the other, in C columns."""

    def stacked(rows, fill, dtype):
        out_BC = np.full((len(done), C), fill, dtype)
        for row, values in enumerate(rows):
            out_BC[row, : len(values)] = values
        return out_BC

    stats = TokenStats(
        **{
            name: stacked([getattr(one.stats, name) for one in done], 0, np.float32)
            for name in TokenStats.__dataclass_fields__
        }
    )
    length_B = np.asarray([len(one.tokens) for one in done], np.int32)
    return Rollout(
        prompts=prompts,
        tokens=stacked([one.tokens for one in done], pad_id, np.int32),
        mask=np.arange(C) < length_B[:, None],
        stats=stats,
        truncated=np.asarray([one.truncated for one in done]),
        length=length_B,
    )
