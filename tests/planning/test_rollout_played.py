"""The schedule played through without a device takes the steps that the sampler takes."""

import dataclasses

import numpy as np
import pytest
from support.queues import LENGTHS, LIMIT, SHAPE, queue, run, sampling

from rlif_jax.planning.lengths import Lengths
from rlif_jax.planning.rollout import play
from rlif_jax.sampler.pool_shape import Batching

CASES = {
    "refills": (SHAPE, {"chunk": 4}),
    "long chunks": (SHAPE, {}),
    "waiting for pages": (dataclasses.replace(SHAPE, pages=13), {"chunk": 3}),
    "narrowing": (dataclasses.replace(SHAPE, slots=16, pages=130), {"narrow_for": 1, "chunk": 5}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_played_step_is_as_long_as_a_real_one(tiny, name):
    shape, batching = CASES[name]
    engine = sampling(tiny, **batching)
    real = run(engine, tiny, queue(), shape=shape)
    lengths = Lengths(np.array(LENGTHS), np.array([len(s.tokens) for s in real.samples]), "")
    played = play(lengths, shape, engine.batching, 1, LIMIT)
    assert played.steps == real.usage.steps
    assert len(played.chunks) == real.usage.chunks
    assert played.slot_steps == real.usage.slot_steps
    assert sum(played.prefills.values()) == real.usage.prefills
    assert (min(chunk.slots for chunk in played.chunks) < shape.slots) == (name == "narrowing")


def test_the_cache_is_read_as_far_as_it_is_filled():
    """One sequence of 3 + 8 tokens in chunks of 4: 3 to 7 tokens, then 7 to 11."""
    lengths = Lengths(np.array([3]), np.array([8]), "")
    batching = Batching(slots=1, page=8, chunk=4)
    shape = dataclasses.replace(SHAPE, slots=1)
    played = play(lengths, shape, batching, 1, LIMIT)
    assert [(c.steps, c.slots, c.cached) for c in played.chunks] == [(4, 1, 5.0), (4, 1, 9.0)]


def test_the_fullest_row_shard_counts():
    """Two shards with a sequence each, of 5 and of 19 prompt tokens."""
    lengths = Lengths(np.array([5, 19]), np.array([4, 4]), "")
    shape = dataclasses.replace(SHAPE, slots=2)
    played = play(lengths, shape, Batching(slots=2, page=8, chunk=4), 2, LIMIT)
    assert [(c.steps, c.cached) for c in played.chunks] == [(4, 21.0)]
