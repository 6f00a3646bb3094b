"""What the host keeps of a run, worked by hand, and when it does its work."""

import jax
import numpy as np
import pytest
from support.queues import SHAPE, queue, run, sampling

from rlif_jax.batch import TokenStats
from rlif_jax.sampler.pool_shape import PoolShape
from rlif_jax.sampler.requests import Request
from rlif_jax.sampler.schedule import Schedule

KEY = np.zeros(2, np.uint32)
PROMPT = [4, 5, 6]


def schedule(limits, slots: int = 2, stop=None, **how) -> Schedule:
    shape = PoolShape(slots, 4, 40, 5, "plain", "float32")
    requests = [Request(0, KEY, limit) for limit in limits]
    settings = {"chunk": 4, "narrow_for": 0, "drafts": False, "eos_ids": (9,), "stop": stop, **how}
    return Schedule(shape, 1, [PROMPT], requests, **settings)


def chunk(*rows) -> tuple[np.ndarray, TokenStats]:
    """Tokens int32 [B, 4] of a chunk, and statistics that tell rows and columns apart."""
    tokens_BK = np.array([[*row, *[0] * (4 - len(row))] for row in rows], np.int32)
    number_BK = tokens_BK + np.arange(4) / 8
    return tokens_BK, TokenStats(*(number_BK.astype(np.float32) + i for i in range(5)))


def test_a_sequence_is_written_down_chunk_by_chunk():
    """Six tokens over two chunks, beside one that ends with an end-of-sequence token."""
    s = schedule([6, 8])
    while s.next_round() is not None:
        pass
    s.table()
    first = s.settle(np.array([4, 2]), np.array([True, False]))
    assert [(one.row, one.count, one.over) for one in first] == [(0, 4, False), (1, 2, True)]
    (ended,) = s.record(first, *chunk([1, 2, 3, 4], [7, 9]))
    assert (ended.request, ended.tokens.tolist(), ended.truncated) == (1, [7, 9], False)
    np.testing.assert_array_equal(ended.stats.entropy, np.float32([7 + 1, 9.125 + 1]))
    s.table()
    second = s.settle(np.array([2, 0]), np.array([False, False]))
    (cut,) = s.record(second, *chunk([5, 6], []))
    assert (cut.request, cut.tokens.tolist(), cut.truncated) == (0, [1, 2, 3, 4, 5, 6], True)
    want = np.float32([1, 2.125, 3.25, 4.375, 5, 6.125])
    np.testing.assert_array_equal(cut.stats.logprob, want)
    np.testing.assert_array_equal(cut.stats.top2, want + 4)
    assert not s.unfinished


def test_what_a_chunk_drew_may_be_recorded_when_its_slot_has_another_sequence():
    s, got = schedule([4, 4], slots=1), []
    s.next_round()
    s.table()
    drawn = s.settle(np.array([4]), np.array([False]))
    s.next_round()  # the second request takes the slot
    s.table()
    got += s.record(drawn, *chunk([1, 2, 3, 4]))
    got += s.record(s.settle(np.array([4]), np.array([False])), *chunk([5, 6, 7, 8]))
    assert [(one.request, one.tokens.tolist()) for one in got] == [
        (0, [1, 2, 3, 4]),
        (1, [5, 6, 7, 8]),
    ]


def test_a_samples_memory_is_that_of_its_tokens():
    s = schedule([19])
    s.next_round()
    s.table()
    (done,) = s.record(s.settle(np.array([1, 0]), np.array([False, False])), *chunk([9], []))
    assert all(
        x.base is None and x.shape == (1,) for x in jax.tree.leaves((done.tokens, done.stats))
    )


@pytest.mark.parametrize(("narrow_for", "width"), [(0, 8), (1, 4), (5, 4), (6, 8)])
def test_fewer_slots_have_to_pay(narrow_for, width):
    """Six of eight sequences end in the first chunk; of the others, one may get 5 more tokens."""
    s = schedule([4] * 6 + [6, 9], slots=8, narrow_for=narrow_for)
    while s.next_round() is not None:
        pass
    s.table()
    s.settle(np.full(8, 4), np.arange(8) >= 6)
    rows = s.narrow()
    assert s.width == width
    assert (rows is None) == (width == 8)


def test_a_table_in_use_is_not_written_to():
    """A device may read a page table as late as the next one is made."""
    s = schedule([16, 16])
    s.next_round()
    before, run_B = s.table()
    kept = before.copy()
    assert run_B.all()
    s.settle(np.array([4, 4]), np.array([True, True]))
    after, _ = s.table()
    np.testing.assert_array_equal(before, kept)
    assert (after != before).any()


def test_pages_of_a_sequence_that_is_over_leave_the_table():
    s = schedule([16, 16])
    s.next_round()
    s.table()
    s.settle(np.array([4, 4]), np.array([False, True]))
    table_BJ, run_B = s.table()
    assert not table_BJ[0].any() and table_BJ[1].any()
    assert run_B.tolist() == [False, True]


def order_of(tiny, monkeypatch, stop=None) -> list[str]:
    """What the host does in a run: chunks it starts, and what it records."""
    engine, seen = sampling(tiny, chunk=4), []
    decode_chunk, record = engine.decode_chunk, Schedule.record

    def started(*args):
        seen.append("start")
        return decode_chunk(*args)

    def recorded(*args):
        seen.append("record")
        return record(*args)

    monkeypatch.setattr(engine, "decode_chunk", started)
    monkeypatch.setattr(Schedule, "record", recorded)
    run(engine, tiny, queue(), stop=stop)
    return seen


def test_the_next_chunk_starts_before_the_last_is_recorded(tiny, monkeypatch):
    seen = order_of(tiny, monkeypatch)
    chunks = len(seen) // 2
    assert seen == ["start", *["start", "record"] * (chunks - 1), "record"]
    assert chunks > 4


def test_texts_that_decide_who_continues_are_recorded_first(tiny, monkeypatch):
    seen = order_of(tiny, monkeypatch, stop=lambda prompt, tokens, seen: None)
    assert seen == ["start", "record"] * (len(seen) // 2)


def test_samples_are_the_same_in_either_order(tiny):
    plain = run(sampling(tiny), tiny, queue())
    read = run(sampling(tiny), tiny, queue(), stop=lambda prompt, tokens, seen: None)
    assert [one.tokens.tolist() for one in plain.samples] == [
        one.tokens.tolist() for one in read.samples
    ]
    assert plain.usage == read.usage
    assert SHAPE.slots < len(plain.samples)
