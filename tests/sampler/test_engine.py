"""Continuous batching changes when a sequence is computed, and nothing else."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from support.queues import (
    LENGTHS,
    LIMIT,
    PAGE,
    PROMPTS,
    SHAPE,
    STATS,
    G,
    assert_close_stats,
    assert_same_bits,
    compiled,
    flips,
    forward_samples,
    queue,
    run,
    sampling,
)

from rlif_jax.sampler.requests import Request

WIDE = dataclasses.replace(SHAPE, slots=16, pages=130)


@pytest.fixture(scope="module")
def engine(tiny):
    return sampling(tiny)


@pytest.fixture(scope="module")
def base(engine, tiny):
    """Fifteen sequences of five prompts over four slots."""
    return run(engine, tiny, queue())


def test_samples_are_those_of_the_whole_forward_pass(tiny, base):
    """Tokens and statistics, behind prompts that end inside a page, with it, and one of 1 token."""
    want = forward_samples(tiny, queue())
    assert {length % PAGE == 0 for length in LENGTHS} == {True, False} and 1 in LENGTHS
    assert_close_stats(base.samples, want)
    lengths = [len(one.tokens) for one in base.samples]
    assert len(set(lengths)) > 5 and LIMIT in lengths  # slots fall free at different times
    assert any(len(one.tokens) > 2 * PAGE and not one.truncated for one in base.samples)


@pytest.fixture(scope="module")
def endless(tiny):
    return sampling(tiny, eos_ids=(), chunk=4)


def test_a_run_is_repeated_from_its_keys(engine, tiny, base):
    again = run(engine, tiny, queue())
    assert_same_bits(again.samples, base.samples)
    assert again.arrivals == base.arrivals and again.usage == base.usage
    other = run(engine, tiny, queue(seed=6))
    assert flips(other.samples, base.samples) == len(base.samples)


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_length_of_a_chunk_changes_no_bit(tiny, base, chunk):
    got = run(sampling(tiny, chunk=chunk), tiny, queue())
    assert got.usage.chunks > base.usage.chunks
    assert_same_bits(got.samples, base.samples)


@pytest.mark.parametrize("order", [[4, 2, 0, 3, 1], [3], [1, 2]])
def test_slots_neighbours_and_the_queue_change_no_bit(engine, tiny, base, order):
    """Other prompts before it, none beside it, nobody waiting: each sequence stays what it was."""
    got = run(engine, tiny, queue(order))
    want = [base.samples[n * G + g] for n in order for g in range(G)]
    assert_same_bits(got.samples, want)


def test_neighbours_of_other_lengths_change_no_bit(engine, tiny, base):
    """Others end after one token, so that every slot of the sequences in question changes."""
    requests = [
        dataclasses.replace(request, limit=LIMIT if request.prompt == 3 else 1)
        for request in queue([0, 3, 1])
    ]
    got = run(engine, tiny, requests)
    assert_same_bits(got.samples[G : 2 * G], base.samples[3 * G : 4 * G])
    for one, whole in zip(got.samples[:G], base.samples[:G], strict=True):
        assert one.tokens.tolist() == whole.tokens[:1].tolist()


@pytest.mark.parametrize("pages", [9, 13])
def test_sequences_that_wait_for_pages_change_no_bit(engine, tiny, base, pages):
    """The longest sequence can come to hold 3 + 5 pages: with 9 it is alone with the null page."""
    got = run(engine, tiny, queue(), shape=dataclasses.replace(SHAPE, pages=pages))
    assert_same_bits(got.samples, base.samples)
    assert got.usage.useful == base.usage.useful
    assert got.usage.prefills == base.usage.prefills == len(PROMPTS)
    assert got.usage.steps > base.usage.steps  # they have waited


@pytest.mark.parametrize(("page", "columns"), [(4, 14), (64, 1)])
def test_the_size_of_a_page_flips_no_token(tiny, base, page, columns):
    """Sums over pages are rounded in another order: 0 of 15 sequences flip here."""
    shape = dataclasses.replace(SHAPE, page=page, pages=80, columns=columns)
    got = run(sampling(tiny, page=page), tiny, queue(), shape=shape)
    assert flips(got.samples, base.samples) == 0
    assert_close_stats(got.samples, base.samples)


@pytest.fixture(scope="module")
def wide(tiny):
    """All fifteen sequences at once, in sixteen slots that stay sixteen."""
    return run(sampling(tiny), tiny, queue(), shape=WIDE)


def test_the_number_of_slots_flips_no_token(tiny, base, wide):
    """Other shapes: 0 of 15 sequences flip here."""
    one = run(sampling(tiny), tiny, queue(), shape=dataclasses.replace(SHAPE, slots=1))
    for got in (one, wide):
        assert flips(got.samples, base.samples) == 0
        assert_close_stats(got.samples, base.samples)
    assert one.usage.slot_steps == one.usage.useful == base.usage.useful
    assert wide.usage.steps == max(len(sample.tokens) for sample in wide.samples)


def test_narrowing_flips_no_token_and_saves_steps(tiny, wide):
    """From 16 slots to 8 and to 4 as sequences end: 0 of 15 flip here."""
    engine = sampling(tiny, narrow_for=1)
    narrow = run(engine, tiny, queue(), shape=WIDE)
    assert compiled(engine)[2] == 3
    assert flips(narrow.samples, wide.samples) == 0
    assert_close_stats(narrow.samples, wide.samples)
    assert narrow.usage.useful == wide.usage.useful
    assert narrow.usage.steps == wide.usage.steps
    assert narrow.usage.slot_steps < 0.8 * wide.usage.slot_steps


def test_narrowing_waits_until_nothing_waits(tiny, base):
    """Four slots are never halved, and a queue keeps eight of them busy."""
    four = sampling(tiny, narrow_for=1)
    assert_same_bits(run(four, tiny, queue()).samples, base.samples)
    assert compiled(four)[2] == 1


def test_each_prompt_is_prefilled_once(engine, tiny, base):
    assert base.usage.prefills == len(PROMPTS)
    many = [Request(0, key, 2) for key in np.arange(60, dtype=np.uint32).reshape(30, 2)]
    many += [Request(3, request.key, 2) for request in many]
    assert run(engine, tiny, many).usage.prefills == 2


@pytest.mark.parametrize(
    ("limits", "arrivals", "steps", "chunks"),
    [
        # Three steps until the first ends and the third takes its slot, two more for both others;
        # batches one after the other would take 5 + 2.
        ((3, 5, 2), [[0], [2, 1]], 5, 2),
        # One step, then nothing waits: chunks of 4, 4 and 1 steps.
        ((10, 1, 9), [[1], [], [], [0, 2]], 10, 4),
    ],
)
def test_slots_are_refilled_as_they_fall_free(endless, tiny, limits, arrivals, steps, chunks):
    """Worked by hand: two slots, chunks of four steps, no end of sequence."""
    keys = [request.key for request in queue([0])]
    requests = [Request(0, key, limit) for key, limit in zip(keys, limits, strict=True)]
    got = run(endless, tiny, requests, shape=dataclasses.replace(SHAPE, slots=2))
    assert [len(one.tokens) for one in got.samples] == list(limits)
    assert all(one.truncated for one in got.samples)
    assert got.arrivals == arrivals
    usage = got.usage
    assert (usage.steps, usage.slot_steps, usage.useful) == (steps, 2 * steps, sum(limits))
    assert (usage.chunks, usage.prefills) == (chunks, 1)


def test_pages_are_given_as_sequences_grow(endless, tiny):
    """Worked by hand: four pages, one for the prompt, and two sequences that need two each.

    Both run for 8 steps in their first pages; then one gets the last page and the other waits for
    8 steps, until that one has ended.
    """
    keys = [request.key for request in queue([1])]
    requests = [Request(1, key, 16) for key in keys[:2]]
    got = run(endless, tiny, requests, shape=dataclasses.replace(SHAPE, slots=2, pages=5))
    assert (got.usage.steps, got.usage.chunks, got.usage.useful) == (24, 6, 32)
    assert got.arrivals == [[], [], [], [0], [], [1]]


def test_finished_samples_come_before_the_others_are_done(base):
    first = next(i for i, arrived in enumerate(base.arrivals) if arrived)
    assert len(base.arrivals[first]) < 4  # of four in the slots
    assert len([arrived for arrived in base.arrivals if arrived]) > 5


def test_a_thousand_samples_of_one_prompt(engine, tiny, base):
    """Each of 1000 comes once and whole, over four slots, from one prefill."""
    keys = np.concatenate([[r.key for r in queue([1])], np.arange(1994).reshape(997, 2)])
    requests = [Request(1, key.astype(np.uint32), 2) for key in keys]
    got = run(engine, tiny, requests)
    assert got.usage.prefills == 1
    for one, whole in zip(got.samples[:G], base.samples[G:], strict=False):
        assert one.tokens.tolist() == whole.tokens[:2].tolist()
    lengths = Counter(len(one.tokens) for one in got.samples)
    assert lengths[2] > 900 and set(lengths) <= {1, 2}
    assert len({tuple(one.tokens) for one in got.samples}) > 300
    assert got.usage.useful == lengths[1] + 2 * lengths[2]
    assert got.usage.useful / got.usage.slot_steps > 0.95


def test_without_statistics_the_tokens_are_the_same(tiny, base):
    got = run(sampling(tiny, stats=False), tiny, queue())
    assert flips(got.samples, base.samples) == 0
    assert all(one.stats is None for one in got.samples)


def test_nothing_is_compiled_again_for_other_prompts_and_lengths(tiny):
    """Prompts of one page and of three have a prefill each, and all runs of a shape the rest."""
    engine = sampling(tiny)
    run(engine, tiny, queue())
    assert compiled(engine) == (2, 1, 1)
    other = [list(range(40, 40 + n)) for n in (24, 3, 17, 20, 7)]
    requests = [dataclasses.replace(request, limit=2 + request.prompt) for request in queue(seed=8)]
    run(engine, tiny, requests[:7], prompts=other)
    assert compiled(engine) == (2, 1, 1)


def test_a_bfloat16_cache_is_near(tiny, base):
    """Half the memory for rounded keys and values: statistics of the first tokens move a little."""
    shape = dataclasses.replace(SHAPE, dtype="bfloat16")
    got = run(sampling(tiny), tiny, queue(), shape=shape)
    distances = []
    for one, other in zip(got.samples, base.samples, strict=True):
        same = 1 + next(
            (i for i, (a, b) in enumerate(zip(one.tokens, other.tokens, strict=False)) if a != b),
            min(len(one.tokens), len(other.tokens)) - 1,
        )
        distances += [
            np.abs(getattr(one.stats, name)[:same] - getattr(other.stats, name)[:same]).max()
            for name in STATS
            if name != "logprob"
        ]
    assert 0 < max(distances) < 0.1
