"""Tokens guessed ahead change when a token is drawn, and nothing about which."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.queues import (
    PROMPTS,
    SHAPE,
    assert_close_stats,
    assert_same_bits,
    compiled,
    flips,
    queue,
    run,
    sampling,
)

from rlif_jax.errors import UserError
from rlif_jax.sampler import drafts as drafting
from rlif_jax.sampler.drafts import CONTEXT, ENTRIES, NONE, guess, learn
from rlif_jax.sampler.draw import key_data, row_keys
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.requests import Request

EMPTY = jnp.full((1, ENTRIES), NONE, jnp.int32)


def learnt(table_NE, *texts: list[int]):
    """The table after these texts, one for each shard."""
    text_N1T = jnp.asarray([[[NONE] * CONTEXT + text] for text in texts], jnp.int32)
    return learn(table_NE, text_N1T, text_N1T >= 0)


def guessed(table_NE, *recent: list[int], count: int) -> list[list[int]]:
    recent_BR = jnp.asarray([([NONE] * CONTEXT + one)[-CONTEXT:] for one in recent], jnp.int32)
    return np.asarray(guess(table_NE, recent_BR, count)).tolist()


def test_what_followed_the_longest_context_is_guessed():
    """7 was followed by 8, by 9 after 6 and 5, and by 1 after 4 and 5."""
    table = learnt(EMPTY, [4, 5, 7, 1])
    table = learnt(table, [6, 5, 7, 9])
    table = learnt(table, [7, 8])
    recent = [4, 5, 7], [6, 5, 7], [2, 5, 7], [2, 2, 7], [7]
    assert guessed(table, *recent, count=1) == [[1], [9], [9], [8], [8]]


def test_guesses_follow_each_other_up_to_where_nothing_is_known():
    table = learnt(EMPTY, [10, 11, 12, 13])
    assert guessed(table, [10], [12], [13], [50], [], count=4) == [
        [11, 12, 13, NONE],
        [13, NONE, NONE, NONE],
        *([[NONE] * 4] * 3),
    ]


def test_only_valid_columns_are_learnt():
    text_11T = jnp.asarray([[[NONE, NONE, 20, 21, 22, 23]]])
    table = learn(EMPTY, text_11T, jnp.asarray([[[True] * 5 + [False]]]))
    assert guessed(table, [20], [21], [22], count=1) == [[21], [22], [NONE]]


def test_each_shard_has_a_table_of_its_own():
    """Slots lie shard after shard."""
    table = learnt(jnp.tile(EMPTY, (2, 1)), [1, 2, 3], [1, 4, 5])
    assert guessed(table, [1], [2], [1], [2], count=1) == [[2], [3], [4], [NONE]]


@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("drafts", [1, 3, 6])
def test_no_token_flips(tiny, temperature, drafts):
    """0 of 15 sequences; chunks of 16 tokens, which not every W divides."""
    plain = run(sampling(tiny, temperature=temperature, chunk=16), tiny, queue())
    ahead = sampling(tiny, temperature=temperature, chunk=16, draft_tokens=drafts)
    got = run(ahead, tiny, queue())
    assert compiled(ahead) == (2, 1, 1)
    assert flips(got.samples, plain.samples) == 0
    assert_close_stats(got.samples, plain.samples)
    usage = got.usage
    assert usage.drawn == usage.useful == plain.usage.useful and plain.usage.tokens_per_draw == 1
    assert usage.tokens_per_draw > {0.0: 1.4, 0.3: 1.05, 0.9: 1.0}[temperature]
    assert usage.slot_use == pytest.approx(usage.drawing / usage.slot_steps)


def test_a_sample_that_was_there_before_is_guessed(tiny):
    """The same keys again: most guesses are right, at a temperature at which few others are."""
    ahead = sampling(tiny, draft_tokens=3)
    once = run(ahead, tiny, queue([3]))
    twice = run(ahead, tiny, queue([3]) * 12)
    assert_close_stats(twice.samples, once.samples * 12)
    assert once.usage.tokens_per_draw < 1.2 and twice.usage.tokens_per_draw > 2


@pytest.mark.parametrize("token", [7, 259])
def test_wrong_guesses_change_no_token(tiny, token, monkeypatch):
    """Each guess names one token, whatever has been seen."""
    plain = run(sampling(tiny), tiny, queue())
    monkeypatch.setattr(
        drafting, "guess", lambda table, recent, count: jnp.full((len(recent), count), token)
    )
    got = run(sampling(tiny, draft_tokens=4), tiny, queue())
    assert flips(got.samples, plain.samples) == 0
    assert_close_stats(got.samples, plain.samples)
    assert got.usage.tokens_per_draw < 1.1


@pytest.mark.parametrize("order", [[4, 2, 0, 3, 1], [3]])
def test_neighbours_flip_no_token(tiny, order):
    """Other guesses, so tokens are drawn in other rows."""
    ahead = sampling(tiny, temperature=0.3, draft_tokens=3)
    base, got = run(ahead, tiny, queue()), run(ahead, tiny, queue(order))
    want = [base.samples[n * 3 + g] for n in order for g in range(3)]
    assert_same_bits(got.samples, want)


@pytest.mark.parametrize("pages", [9, 13])
def test_sequences_wait_for_pages(tiny, pages):
    """A guess gets no page: what a sequence can come to hold is as without."""
    shape = dataclasses.replace(SHAPE, pages=pages)
    ahead = sampling(tiny, temperature=0.3, draft_tokens=5, chunk=8)
    plain = run(sampling(tiny, temperature=0.3), tiny, queue())
    got = run(ahead, tiny, queue(), shape=shape)
    assert flips(got.samples, plain.samples) == 0
    assert_close_stats(got.samples, plain.samples)


def test_slots_are_narrowed(tiny):
    wide = dataclasses.replace(SHAPE, slots=16, pages=130)
    ahead = sampling(tiny, narrow_for=1, draft_tokens=2, temperature=0.3)
    plain = run(sampling(tiny, temperature=0.3), tiny, queue(), shape=wide)
    got = run(ahead, tiny, queue(), shape=wide)
    assert compiled(ahead)[2] == 3
    assert flips(got.samples, plain.samples) == 0
    assert_close_stats(got.samples, plain.samples)


def test_limits_are_kept(tiny):
    """Whether a guess would go beyond it or not: sequences of 1 to 9 tokens that repeat."""
    keys = [request.key for request in queue([4])]
    requests = [Request(4, keys[i % 3], 1 + i) for i in range(9)] * 2
    plain = run(sampling(tiny, temperature=0.0, eos_ids=()), tiny, requests)
    got = run(sampling(tiny, temperature=0.0, eos_ids=(), draft_tokens=3), tiny, requests)
    assert [len(one.tokens) for one in got.samples] == [1 + i for i in range(9)] * 2
    assert flips(got.samples, plain.samples) == 0
    assert got.usage.tokens_per_draw > 1.2


def likely_texts(tiny, prompt: list[int], temperature: float, least: float) -> dict:
    """The probabilities of three tokens behind a prompt, by forward passes: of the likely ones."""
    graphdef, params, _ = tiny
    model = nnx.merge(graphdef, params)
    texts: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        rows = np.array([[*prompt, *text] for text in texts])
        z_BV = np.asarray(model.logits(jnp.asarray(rows))[:, -1], np.float64) / temperature
        mass_BV = np.exp(z_BV - z_BV.max(-1, keepdims=True))
        p_BV = np.array([*texts.values()])[:, None] * mass_BV / mass_BV.sum(-1, keepdims=True)
        each = zip(texts, p_BV, strict=True)
        texts = {(*t, v): p_V[v] for t, p_V in each for v in np.flatnonzero(p_V > least).tolist()}
    return texts


def test_frequencies_are_those_of_the_model(tiny):
    """Pearson's statistic of the first three tokens of 8,000 samples.

    The third is often drawn behind a guess, which is to leave no trace where it was wrong.
    """
    samples, prompt, temperature = 8000, PROMPTS[0], 0.2
    keys = key_data(row_keys(jax.random.key(11), samples))
    requests = [Request(0, key, 3) for key in keys]
    shape = dataclasses.replace(SHAPE, slots=64, pages=400)
    ahead = sampling(tiny, temperature=temperature, eos_ids=(), draft_tokens=2, slots=64)
    got = run(ahead, tiny, requests, prompts=[prompt], shape=shape)
    assert got.usage.tokens_per_draw > 1.1
    expected = likely_texts(tiny, prompt, temperature, least=5 / samples)
    drawn = Counter(tuple(one.tokens.tolist()) for one in got.samples)
    cells = [(drawn[text], samples * p) for text, p in expected.items()]
    seen, wanted = (sum(column) for column in zip(*cells, strict=True))
    cells.append((samples - seen, samples - wanted))
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    freedom = len(cells) - 1
    assert freedom > 50 and wanted > samples / 4
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_a_chunk_holds_a_step():
    with pytest.raises(UserError, match="draft_tokens=4 must be below chunk=4"):
        Batching(draft_tokens=4, chunk=4)
