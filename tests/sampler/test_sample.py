"""Rollouts of the very small model: masks, statistics, keys, streaming, one program per shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rlif_jax.batch import Prompts
from rlif_jax.data.prompts import pad_prompts
from rlif_jax.sampler.sample import make_sample, trim
from rlif_jax.scoring import make_score, sequences
from rlif_jax.sharding import make_mesh, param_shardings

PROMPTS = [[70, 71, 72, 73, 80], [90, 91], [100, 101, 102, 103, 104, 105, 106, 107]]
G, C = 4, 40


def sampler(tiny, **changes):
    settings = {"samples_per_prompt": G, "temperature": 0.9, "max_new_tokens": C, "pad_id": 2}
    return make_sample(tiny[0], **{**settings, **changes})


@pytest.fixture(scope="module")
def rollout(tiny):
    return sampler(tiny)(tiny[1], pad_prompts(PROMPTS, 2, 8), jax.random.key(5))


def test_mask_ends_with_the_first_eos(rollout):
    tokens, mask = np.asarray(rollout.tokens), np.asarray(rollout.mask)
    lengths = set()
    for row in range(len(PROMPTS) * G):
        ends = np.flatnonzero(np.isin(tokens[row], (0, 2)))
        length = ends[0] + 1 if ends.size else C
        lengths.add(int(length))
        assert mask[row].tolist() == [t < length for t in range(C)]
        assert rollout.length[row] == length
        assert rollout.truncated[row] == (not ends.size)
    assert len(lengths) > 2  # the case is worth testing: rows stop at different places


def test_rows_carry_their_prompts(rollout):
    for row in range(len(PROMPTS) * G):
        real = np.asarray(rollout.prompt_tokens)[row][np.asarray(rollout.prompt_mask)[row]]
        assert real.tolist() == PROMPTS[row // G]


def test_statistics_equal_a_scoring_pass(tiny, rollout):
    scored = make_score(tiny[0], temperature=0.9, micro_batches=3)(tiny[1], rollout)
    mask = np.asarray(rollout.mask)
    for name in ("logprob", "entropy", "self_certainty", "top1", "top2"):
        sampled = np.asarray(getattr(rollout.stats, name))
        np.testing.assert_allclose(
            sampled[mask], np.asarray(getattr(scored, name))[mask], atol=2e-5, rtol=2e-5
        )
        assert (sampled[~mask] == 0).all()


def test_temperature_divides_the_logits(tiny):
    """At a temperature near zero every token is the likeliest after what stands before it."""
    graphdef, params, _ = tiny
    cold = sampler(tiny, temperature=1e-4, max_new_tokens=6)
    rollout = cold(params, pad_prompts(PROMPTS, 2, 8), jax.random.key(0))
    rows = sequences(rollout)
    model = nnx.merge(graphdef, params)
    logits_BTV = model.logits(rows.tokens, rows.position, rows.mask)
    likeliest_BC = np.asarray(logits_BTV.argmax(-1))[:, 7:-1]
    mask = np.asarray(rollout.mask)
    assert mask.sum() > 40
    assert (likeliest_BC[mask] == np.asarray(rollout.tokens)[mask]).all()


def test_a_row_does_not_depend_on_its_neighbours_or_on_padding(tiny, rollout):
    prompts = pad_prompts(PROMPTS[:1], 2, 8)
    alone = sampler(tiny)(tiny[1], prompts, jax.random.key(5))
    assert (np.asarray(alone.tokens) == np.asarray(rollout.tokens)[:G]).all()
    wider = pad_prompts(PROMPTS, 2, 32)
    padded = sampler(tiny)(tiny[1], wider, jax.random.key(5))
    assert (np.asarray(padded.tokens) == np.asarray(rollout.tokens)).all()


def test_the_key_decides(tiny, rollout):
    again = sampler(tiny)(tiny[1], pad_prompts(PROMPTS, 2, 8), jax.random.key(5))
    other = sampler(tiny)(tiny[1], pad_prompts(PROMPTS, 2, 8), jax.random.key(6))
    assert (np.asarray(again.tokens) == np.asarray(rollout.tokens)).all()
    assert (np.asarray(other.tokens) != np.asarray(rollout.tokens)).any()
    first = np.asarray(rollout.tokens)[:G]
    assert len({tuple(row) for row in first}) == G  # samples of one prompt differ


def test_finished_rows_come_out_once_and_whole(tiny, rollout):
    seen = {}
    calls = 0

    def rows_finished(rows, tokens):
        nonlocal calls
        calls += 1
        for row, row_tokens in zip(rows.tolist(), tokens, strict=True):
            assert row not in seen
            seen[row] = row_tokens.tolist()

    sampler(tiny)(tiny[1], pad_prompts(PROMPTS, 2, 8), jax.random.key(5), rows_finished)
    tokens, mask = np.asarray(rollout.tokens), np.asarray(rollout.mask)
    assert seen == {r: tokens[r][mask[r]].tolist() for r in range(len(PROMPTS) * G)}
    assert calls > 1  # they come while others go on


def test_a_mesh_gives_the_same_tokens(tiny, rollout):
    params = tiny[1]
    prompts = pad_prompts([*PROMPTS, PROMPTS[0]], 2, 8)
    expected = sampler(tiny)(params, prompts, jax.random.key(5))
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(params, mesh))
        got = sampler(tiny)(placed, prompts, jax.random.key(5))
    assert (np.asarray(got.tokens) == np.asarray(expected.tokens)).all()
    np.testing.assert_allclose(got.stats.entropy, expected.stats.entropy, atol=1e-5)


def test_trim_keeps_every_real_token(rollout):
    cut = trim(rollout.replace(length=jnp.minimum(rollout.length, 9)), 8)
    assert cut.tokens.shape == cut.mask.shape == cut.stats.entropy.shape == (len(PROMPTS) * G, 16)
    assert trim(rollout, 64).tokens.shape[1] == C
    assert cut.prompt_tokens.shape == rollout.prompt_tokens.shape


def test_an_empty_prompt_slot_gives_finite_statistics(tiny):
    prompts = Prompts(tokens=np.full((1, 8), 2, np.int32), mask=np.zeros((1, 8), bool))
    rollout = sampler(tiny)(tiny[1], prompts, jax.random.key(0))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(rollout.stats))
