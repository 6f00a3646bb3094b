"""Sampling on eight devices as on one: how rows, heads and pages are split changes no token."""

import jax
import pytest
from support.queues import PROMPTS, G, assert_close_stats, compiled, flips, queue, run, sampling

from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import make_mesh, param_shardings


@pytest.fixture(scope="module")
def alone(tiny):
    return run(sampling(tiny, slots=8), tiny, queue(), shape=None)


@pytest.mark.parametrize(
    ("axes", "shards"),
    [
        ((2, 2, 2), 4),  # one of two key/value heads on each
        ((8, 1, 1), 8),
        ((2, 1, 4), 2),  # two key/value heads, each on two devices
    ],
)
def test_eight_devices_give_the_same_tokens(tiny, alone, axes, shards):
    """Sums over devices round otherwise: 0 of 15 sequences flip here."""
    graphdef, params, tokenizer = tiny
    mesh = make_mesh(*axes)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(params, mesh))
        synced = graphdef, make_sync(graphdef)(placed), tokenizer
        engine = sampling(synced, slots=8)
        got = run(engine, synced, queue(), shape=None)
        assert flips(got.samples, alone.samples) == 0
        assert_close_stats(got.samples, alone.samples)
        # A prompt is computed once on every shard that has samples of it.
        assert len(PROMPTS) <= got.usage.prefills <= min(shards, G) * len(PROMPTS)
        assert compiled(engine) == (2, 1, 1)  # prompts of one page, and of three
        again = run(engine, synced, queue(seed=6), shape=None)
        assert flips(again.samples, got.samples) == 15
        assert compiled(engine) == (2, 1, 1)


def test_tokens_guessed_ahead_on_eight_devices(tiny):
    """Each row shard has a table of its own; 0 of 15 sequences flip."""
    graphdef, params, tokenizer = tiny
    plain = run(sampling(tiny, slots=8, temperature=0.3), tiny, queue(), shape=None)
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(params, mesh))
        synced = graphdef, make_sync(graphdef)(placed), tokenizer
        engine = sampling(synced, slots=8, temperature=0.3, draft_tokens=3)
        got = run(engine, synced, queue(), shape=None)
        assert compiled(engine) == (2, 1, 1)
    assert flips(got.samples, plain.samples) == 0
    assert_close_stats(got.samples, plain.samples)
    assert got.usage.tokens_per_draw > 1.02


def test_a_mesh_of_one_device_is_that_device(tiny, alone):
    graphdef, params, tokenizer = tiny
    mesh = make_mesh()
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(params, mesh))
        synced = graphdef, make_sync(graphdef)(placed), tokenizer
        engine = sampling(synced, slots=8)
        got = run(engine, synced, queue(), shape=None)
    assert flips(got.samples, alone.samples) == 0
    assert compiled(engine) == (2, 1, 1)
