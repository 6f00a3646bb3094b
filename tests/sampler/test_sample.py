"""Rollouts of the very small model: masks, statistics, keys, callbacks, what is compiled."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from support.packed import assert_close, scored
from support.queues import recompiled

from rlif_jax.errors import UserError
from rlif_jax.sampler import pool_shape as budget
from rlif_jax.sampler.engine import Engine
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sample import make_sample
from rlif_jax.sharding import make_mesh, param_shardings

# Four slots for twelve rows, pages that prompts end inside of and with.
BATCHING = Batching(slots=4, page=8)
PROMPTS = [[70, 71, 72, 73, 80], [90, 91], [100, 101, 102, 103, 104, 105, 106, 107]]
G, C = 4, 40


def sampler(tiny, **changes):
    engine = {"temperature": 0.9, "batching": BATCHING}
    engine |= {name: changes.pop(name) for name in engine.keys() & changes}
    settings = {"samples_per_prompt": G, "max_new_tokens": C, "pad_id": 2}
    settings |= {"max_prompt_tokens": 8}
    return make_sample(Engine(tiny[0], **engine), **{**settings, **changes})


@pytest.fixture(scope="module")
def rollout(tiny):
    return sampler(tiny)(tiny[1], PROMPTS, jax.random.key(5))[0]


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
    tokens_NP, mask_NP = rollout.prompts.tokens, rollout.prompts.mask
    assert tokens_NP.shape == mask_NP.shape == (len(PROMPTS), 8)
    assert [t[m].tolist() for t, m in zip(tokens_NP, mask_NP, strict=True)] == PROMPTS


def test_statistics_equal_a_scoring_pass(tiny, rollout):
    stats = scored(*tiny[:2], rollout, 0.9)
    assert_close(rollout.stats, stats, atol=2e-5, rtol=2e-5)  # zeros behind the end of each


def test_temperature_divides_the_logits(tiny):
    """At a temperature near zero every token is the likeliest after what stands before it."""
    graphdef, params, _ = tiny
    cold = sampler(tiny, temperature=1e-4, max_new_tokens=6)
    rollout, _ = cold(params, PROMPTS, jax.random.key(0))
    prompts = jax.tree.map(lambda x_NP: np.repeat(x_NP, G, axis=0), rollout.prompts)
    tokens_BT = np.concatenate([prompts.tokens, rollout.tokens], axis=1)
    mask_BT = np.concatenate([prompts.mask, rollout.mask], axis=1)
    logits_BTV = nnx.merge(graphdef, params).logits(tokens_BT, None, mask_BT)
    likeliest_BC = np.asarray(logits_BTV.argmax(-1))[:, 7:-1]
    mask = rollout.mask
    assert mask.sum() > 40
    assert (likeliest_BC[mask] == np.asarray(rollout.tokens)[mask]).all()


def test_a_row_does_not_depend_on_its_neighbours(tiny, rollout):
    alone, _ = sampler(tiny)(tiny[1], PROMPTS[:1], jax.random.key(5))
    assert (np.asarray(alone.tokens) == np.asarray(rollout.tokens)[:G]).all()
    assert alone.prompts.tokens.shape == (1, 8)


def test_the_key_decides(tiny, rollout):
    again, _ = sampler(tiny)(tiny[1], PROMPTS, jax.random.key(5))
    other, _ = sampler(tiny)(tiny[1], PROMPTS, jax.random.key(6))
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

    sampler(tiny)(tiny[1], PROMPTS, jax.random.key(5), rows_finished)
    tokens, mask = np.asarray(rollout.tokens), np.asarray(rollout.mask)
    assert seen == {r: tokens[r][mask[r]].tolist() for r in range(len(PROMPTS) * G)}
    assert calls > 1  # they come while others go on


def test_the_caller_is_told_after_every_chunk(tiny):
    """Also of those in which no row has ended, for it may want to stop."""
    told = []
    sample = sampler(tiny, batching=dataclasses.replace(BATCHING, chunk=2))

    def rows_finished(rows, tokens):
        told.append(len(rows))

    _, usage = sample(tiny[1], PROMPTS[:1], jax.random.key(5), rows_finished)
    assert len(told) == usage.chunks
    assert 0 in told and sum(told) == G


def test_a_mesh_gives_the_same_tokens(tiny, rollout):
    params = tiny[1]
    prompts = [*PROMPTS, PROMPTS[0]]
    expected, _ = sampler(tiny)(params, prompts, jax.random.key(5))
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(params, mesh))
        got, _ = sampler(tiny)(placed, prompts, jax.random.key(5))
    assert (np.asarray(got.tokens) == np.asarray(expected.tokens)).all()
    np.testing.assert_allclose(got.stats.entropy, expected.stats.entropy, atol=1e-5)


def test_a_rollout_is_as_wide_as_it_may_become(tiny):
    """Seven tokens at most here: later steps with longer completions have the same shapes."""
    graphdef, params, _ = tiny
    model = nnx.merge(graphdef, params)
    model.cfg = dataclasses.replace(model.cfg, eos_ids=tuple(range(0, 261, 3)))
    rollout, _ = sampler((nnx.split(model)[0],))(params, PROMPTS, jax.random.key(5))
    assert rollout.length.max() < 16
    B = len(PROMPTS) * G
    for array in (rollout.mask, *jax.tree.leaves(rollout.stats)):
        assert array.shape == (B, C)
    assert rollout.prompts.tokens.shape == (len(PROMPTS), 8)
    mask_BC = np.asarray(rollout.mask)
    assert (mask_BC.sum(1) == rollout.length).all()
    assert (np.asarray(rollout.tokens)[~mask_BC] == 2).all()
    ends_BC = np.isin(rollout.tokens, model.cfg.eos_ids) & mask_BC
    assert (ends_BC.sum(1) == 1).all() and not rollout.truncated.any()


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(UserError, match="prompt 1 is empty; a model needs at least one token"):
        sampler(tiny)(tiny[1], [[70] * 8, []], jax.random.key(0))


def test_a_prompt_longer_than_the_cache_is_refused(tiny):
    small = dataclasses.replace(BATCHING, cache_gib=16 / 2**20)  # 8 pages of 2 KiB
    draw = sampler(tiny, batching=small)
    with pytest.raises(UserError, match=r"68 tokens needs 0.0215 MiB .* raise cache_gib"):
        sampler(tiny, batching=small, max_new_tokens=60)(tiny[1], PROMPTS, jax.random.key(0))
    rollout, _ = draw(tiny[1], PROMPTS, jax.random.key(5))
    whole, _ = sampler(tiny)(tiny[1], PROMPTS, jax.random.key(5))
    assert (np.asarray(rollout.tokens) == np.asarray(whole.tokens)).all()


def test_a_second_rollout_compiles_nothing_however_much_memory_is_free(tiny, caplog, monkeypatch):
    """Of other prompts and lengths; the pool keeps its size when the free memory changes."""
    draw = sampler(tiny)
    page = 2 * 2 * 2 * 8 * 8 * 4
    monkeypatch.setattr(budget, "_free_bytes", lambda device: 12 * page / 0.8 + 1)
    _, usage = draw(tiny[1], PROMPTS, jax.random.key(5))
    assert usage.prefills == len(PROMPTS)
    monkeypatch.setattr(budget, "_free_bytes", lambda device: 10 * page / 0.8 + 1)
    other = [[80] * 3, [81] * 7, [82]]
    with jax.log_compiles():
        draw(tiny[1], other, jax.random.key(6))
    assert recompiled(caplog.records) == []
