"""Prompts in, Rollout out: what the trainer and the evaluation sample with."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Array, Prompts, Rollout, TokenStats
from rlif_jax.sampler.draw import key_data, row_keys
from rlif_jax.sampler.engine import Sampling, Usage
from rlif_jax.sampler.filters import NO_FILTERS, Filters
from rlif_jax.sampler.pool_shape import Batching, pool_shape
from rlif_jax.sampler.requests import Finished, Request, Stop

RowsFinished = Callable[[np.ndarray, list[np.ndarray]], None]
"""Called after each chunk with the indices of rows that it has finished, often none, and their
tokens, each cut to length."""


def make_sample(
    graphdef: Any,
    *,
    samples_per_prompt: int,
    temperature: float,
    max_new_tokens: int,
    pad_id: int,
    filters: Filters = NO_FILTERS,
    batching: Batching | None = None,
    max_prompt_tokens: int = 0,
    bucket: int = 1,
    stop: Stop | None = None,
):
    """Build `sample(params, prompts, key, rows_finished=None, usage=None) -> Rollout`.

    Programs are compiled once if all prompts have at most `max_prompt_tokens` tokens (0: those of
    the first call set the size; longer ones compile again). A row's tokens depend on the
    parameters, its prompt, `key` and its index only. Temperature 0 is greedy; `filters` narrow the
    choice. Statistics are of softmax(logits / temperature) before any filter, float32. A completion
    ends with one of the model's `eos_ids`, or where `stop` says (see `sampler.stop`). The rollout
    has as many columns as its longest completion, rounded up to `bucket`.
    """
    G, C, batching = samples_per_prompt, max_new_tokens, batching or Batching()
    sampling = Sampling(graphdef, batching=batching, temperature=temperature, filters=filters)
    widest, shapes = max_prompt_tokens, {}

    def sample(
        params,
        prompts: Prompts,
        key: Array,
        rows_finished: RowsFinished | None = None,
        usage: Usage | None = None,
    ) -> Rollout:
        nonlocal widest
        tokens_of = [
            row[mask].tolist()
            for row, mask in zip(np.asarray(prompts.tokens), np.asarray(prompts.mask), strict=True)
        ]
        B = len(tokens_of) * G
        widest = max(widest, *map(len, tokens_of))
        keys = key_data(row_keys(key, B))
        if (B, widest) not in shapes:  # once: what is free changes, what is compiled must not
            cfg = nnx.merge(graphdef, params).cfg
            shapes[B, widest] = pool_shape(
                cfg, batching, prompt=widest, new=C, samples=G, sequences=B
            )
        requests = [Request(row // G, keys[row], C) for row in range(B)]
        done: list[Finished] = []
        for finished in sampling.run(
            params, tokens_of, requests, shape=shapes[B, widest], stop=stop, usage=usage
        ):
            done += finished
            if rows_finished is not None:
                rows = np.asarray([one.request for one in finished], int)
                rows_finished(rows, [one.tokens for one in finished])
        done.sort(key=lambda one: one.request)
        return _rollout(prompts, done, G, C, pad_id, bucket)

    return sample


def _rollout(
    prompts: Prompts, done: list[Finished], G: int, C: int, pad_id: int, bucket: int
) -> Rollout:
    """Finished rows side by side, on the row shards of the mesh."""
    longest = max(len(one.tokens) for one in done)
    columns = min(C, bucket * -(-longest // bucket))

    def stacked(rows, fill, dtype):
        out_BC = np.full((len(done), columns), fill, dtype)
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
    rollout = Rollout(
        prompt_tokens=np.repeat(np.asarray(prompts.tokens), G, axis=0),
        prompt_mask=np.repeat(np.asarray(prompts.mask), G, axis=0),
        tokens=stacked([one.tokens for one in done], pad_id, np.int32),
        mask=np.arange(columns) < length_B[:, None],
        stats=stats,
        truncated=np.asarray([one.truncated for one in done]),
        length=length_B,
    )
    mesh = jax.sharding.get_mesh()
    rows_divide = len(done) % sharding.row_shards() == 0
    return jax.device_put(
        rollout, None if mesh.empty or not rows_divide else sharding.batch_sharding(mesh)
    )
