"""Queues of requests for the very small model, and an oracle that has no cache.

`forward_samples` computes the whole sequence anew for every token, in `Decoder.__call__`, and draws
with the same keys: what the sampler has to say whatever its slots, pages and chunks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rlif_jax.batch import TokenStats
from rlif_jax.kernels.token_stats.api import stats_from_logits
from rlif_jax.sampler.draw import row_keys
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.filters import NO_FILTERS, Filters, choose
from rlif_jax.sampler.pool_shape import Batching, PoolShape
from rlif_jax.sampler.requests import Finished, Request

PAGE = 8
PROMPTS = [
    [70, 71, 72, 73, 80],
    [90, 91, 92, 93, 94, 95, 96, 97],  # ends with its page
    [101],
    list(range(100, 119)),  # ends inside its third page
    list(range(120, 144)),  # ends with its third page
]
LENGTHS = [len(prompt) for prompt in PROMPTS]
G, LIMIT = 3, 30
EOS = tuple(range(3, 261, 13))
"""Many, so that sequences end at many lengths."""
STATS = tuple(TokenStats.__dataclass_fields__)

SHAPE = PoolShape(slots=4, page=PAGE, pages=40, columns=7, kernel="plain", dtype="float32")
"""Room for four sequences of 24 + 30 tokens."""


def keys_of(count: int, seed: int = 5) -> np.ndarray:
    return np.asarray(jax.random.key_data(row_keys(jax.random.key(seed), count)))


def queue(prompts: Sequence[int] = range(5), limit: int = LIMIT, seed: int = 5) -> list[Request]:
    """`G` requests of each of these prompts; their keys do not depend on which others there are."""
    keys = keys_of(G * len(PROMPTS), seed)
    return [Request(n, keys[n * G + g], limit) for n in prompts for g in range(G)]


def sampling(tiny, *, temperature=0.9, filters=NO_FILTERS, eos_ids=EOS, stats=True, **batching):
    """The engine of the very small model; narrowing is off unless asked for."""
    settings = Batching(**{"slots": SHAPE.slots, "page": PAGE, "narrow_for": 0, **batching})
    return Engine(
        tiny[0],
        batching=settings,
        temperature=temperature,
        filters=filters,
        eos_ids=eos_ids,
        with_stats=stats,
    )


def compiled(engine: Engine) -> tuple[int, ...]:
    """For how many shapes each stage has been compiled."""
    names = ("prefill", "admit", "decode_chunk")
    return tuple(getattr(engine, name)._cache_size() for name in names)


def recompiled(records) -> list[str]:
    """Stages of a sampler of which a log has it that they were compiled."""
    stages = re.compile(r"Finished XLA compilation of jit\((prefill|admit|decode_chunk|narrow)\)")
    return [m[1] for record in records if (m := stages.match(record.getMessage()))]


@dataclass
class Drawn:
    """What a run has given: samples by request, the order they came in, the cost."""

    samples: list[Finished]
    arrivals: list[list[int]]
    usage: Usage


def run(engine: Engine, tiny, requests, prompts=PROMPTS, shape=SHAPE, stop=None) -> Drawn:
    """Put the requests through; every one of them must come out, and only once."""
    usage = Usage()
    chunks = list(engine.run(tiny[1], prompts, requests, shape=shape, stop=stop, usage=usage))
    samples = {one.request: one for chunk in chunks for one in chunk}
    arrivals = [[one.request for one in chunk] for chunk in chunks]
    assert sorted(i for arrived in arrivals for i in arrived) == list(range(len(requests)))
    return Drawn([samples[i] for i in range(len(requests))], arrivals, usage)


def flips(got: Sequence[Finished], want: Sequence[Finished]) -> int:
    """How many samples differ in a token."""
    return sum(
        one.tokens.tolist() != other.tokens.tolist() for one, other in zip(got, want, strict=True)
    )


def assert_same_bits(got: Sequence[Finished], want: Sequence[Finished]) -> None:
    """The same samples: tokens, statistics to the last bit, and why they ended."""
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        assert one.truncated == other.truncated
        for name in STATS:
            got_T, want_T = getattr(one.stats, name), getattr(other.stats, name)
            assert got_T.dtype == np.float32
            np.testing.assert_array_equal(got_T, want_T)


def assert_close_stats(got: Sequence[Finished], want: Sequence[Finished]) -> None:
    """The same tokens, and statistics that differ by rounding alone."""
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        assert one.truncated == other.truncated
        for name in STATS:
            np.testing.assert_allclose(
                getattr(one.stats, name), getattr(other.stats, name), atol=1e-4
            )


def forward_samples(
    tiny,
    requests: Sequence[Request],
    temperature: float = 0.9,
    filters: Filters = NO_FILTERS,
    eos_ids: Sequence[int] = EOS,
    prompts: Sequence[Sequence[int]] = PROMPTS,
) -> list[Finished]:
    """The samples of these requests, every token by a forward pass over all before it."""
    graphdef, params, _ = tiny
    B, most = len(requests), max(request.limit for request in requests)
    start_B = np.array([len(prompts[request.prompt]) for request in requests])
    rows_BT = np.zeros((B, start_B.max() + most), np.int32)
    for row, request in zip(rows_BT, requests, strict=True):
        row[: len(prompts[request.prompt])] = prompts[request.prompt]
    key_B = jax.random.wrap_key_data(np.stack([request.key for request in requests]))

    @jax.jit
    def step(params, rows_BT, last_B, t):
        model = nnx.merge(graphdef, params)
        logits_BTV = model.logits(rows_BT)
        z_BV = jnp.take_along_axis(logits_BTV, last_B[:, None, None], axis=1)[:, 0]
        token_B, _ = choose(z_BV, key_B, t, temperature, filters)
        return token_B, stats_from_logits(z_BV / (temperature or 1.0), token_B, z_BV.shape[1])

    stats_B = []
    for t in range(most):
        token_B, stats = jax.device_get(step(params, rows_BT, start_B + t - 1, t))
        rows_BT[np.arange(B), start_B + t] = token_B
        stats_B.append(stats)
    out = []
    for b, request in enumerate(requests):
        tokens = rows_BT[b, start_B[b] : start_B[b] + request.limit]
        ends = np.flatnonzero(np.isin(tokens, eos_ids))
        n = ends[0] + 1 if ends.size else request.limit
        stats = jax.tree.map(lambda *x, b=b, n=n: np.stack(x)[:n, b], *stats_B)
        out.append(Finished(b, tokens[:n], stats, not ends.size))
    return out
