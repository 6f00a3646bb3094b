"""Order, epochs, shards and resumption of the batches."""

import itertools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlif_jax.data.pipeline import fitting, problem_batches
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test


def source_of(count: int) -> list[Problem]:
    return [Problem(str(i), "x" * i, (Test("1", "1", "stdin"),)) for i in range(count)]


def ids(batches, count=None) -> list[list[int]]:
    return [[int(p.id) for p in batch] for batch in itertools.islice(batches, count)]


def flat(batches, count=None) -> list[int]:
    return list(itertools.chain.from_iterable(ids(batches, count)))


def test_batches_are_lists_of_the_sources_problems():
    source = source_of(6)
    batch = next(problem_batches(source, 4, seed=0))
    assert type(batch) is list
    assert len(batch) == 4
    assert all(any(p is q for q in source) for p in batch)


@settings(deadline=None, max_examples=20)
@given(st.integers(8, 40), st.integers(1, 12), st.integers(0, 2**64), st.integers(1, 3))
@example(1, 3, 0, 4)
@example(2, 5, 0, 2)
def test_each_epoch_is_a_permutation(count, batch_size, seed, epochs):
    """Batches may span epochs, the last may be short, and no problem is lost or repeated."""
    batches = ids(problem_batches(source_of(count), batch_size, seed, epochs=epochs))
    stream = list(itertools.chain.from_iterable(batches))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(stream) == count * epochs
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_differ():
    """60! permutations: equal ones can only come from a seed used twice."""
    orders = set()
    for seed in range(4):
        stream = flat(problem_batches(source_of(60), 20, seed, epochs=4))
        orders |= {tuple(stream[k : k + 60]) for k in range(0, 240, 60)}
    assert len(orders) == 16
    assert tuple(range(60)) not in orders


def test_order_depends_on_the_seed_only():
    one = flat(problem_batches(source_of(30), 5, seed=7), 18)
    again = flat(problem_batches(source_of(30), 9, seed=7), 10)
    assert one == again
    assert one != flat(problem_batches(source_of(30), 5, seed=8), 18)


def test_order_is_the_same_everywhere():
    """A stored order: a run resumed after an upgrade of Grain or NumPy must go on as it began."""
    assert flat(problem_batches(source_of(8), 4, seed=0), 4) == [
        *(5, 3, 6, 7, 4, 2, 1, 0),
        *(6, 5, 4, 1, 0, 7, 3, 2),
    ]


@settings(deadline=None, max_examples=15)
@given(st.integers(8, 30), st.integers(1, 5), st.integers(1, 6), st.integers(0, 9))
@example(1, 1, 3, 0)
def test_shards_are_disjoint_and_cover(count, batch_size, processes, seed):
    shards = [
        flat(problem_batches(source_of(count), batch_size, seed, p, processes, epochs=2))
        for p in range(processes)
    ]
    whole = flat(problem_batches(source_of(count), batch_size, seed, epochs=2))
    assert all(shard == whole[p::processes] for p, shard in enumerate(shards))


def test_step_reads_the_same_problems_on_any_number_of_processes():
    whole = ids(problem_batches(source_of(50), 12, seed=3), 10)
    for processes in (2, 3, 4):
        parts = [
            ids(problem_batches(source_of(50), 12 // processes, 3, p, processes), 10)
            for p in range(processes)
        ]
        for step in range(10):
            assert sorted(i for part in parts for i in part[step]) == sorted(whole[step])


@settings(deadline=None, max_examples=15)
@given(st.integers(8, 40), st.integers(1, 5), st.integers(0, 9), st.integers(1, 3))
@example(1, 1, 3, 1)
def test_resumed_iteration_equals_uninterrupted(count, batch_size, before, processes):
    def start():
        return problem_batches(source_of(count), batch_size, 5, processes - 1, processes)

    uninterrupted = ids(start(), before + 4)
    first = start()
    assert ids(first, before) == uninterrupted[:before]
    state = json.loads(json.dumps(first.get_state()))
    resumed = start()
    resumed.set_state(state)
    assert ids(resumed, 4) == uninterrupted[before:]
    assert ids(first, 4) == uninterrupted[before:]


def test_state_moves_an_iterator_back():
    batches = problem_batches(source_of(10), 3, seed=1)
    state = batches.get_state()
    first = ids(batches, 5)
    batches.set_state(state)
    assert ids(batches, 5) == first


def test_fitting_keeps_order_and_counts_the_others():
    """Problem i has a prompt of i characters, here one token each."""
    kept, dropped = fitting(source_of(9), lambda p: list(p.prompt.encode()), max_tokens=6)
    assert [int(kept[i].id) for i in range(len(kept))] == [0, 1, 2, 3, 4, 5, 6]
    assert dropped == 2
    assert sorted(flat(problem_batches(kept, 4, seed=0, epochs=1))) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": []}, r"no problems.*data\.max_prompt_tokens"),
        ({"batch_size": 0}, "at least one problem, not 0"),
        ({"seed": -1}, "-1"),
        ({"process_index": 2, "process_count": 2}, "index 2 is not among 2"),
        ({"process_index": -1}, "index -1 is not among 1"),
        ({"epochs": 0}, "at least one epoch, not 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        problem_batches(**({"source": source_of(4), "batch_size": 2, "seed": 0} | arguments))
