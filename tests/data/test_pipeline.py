"""Order, epochs, shares, shards and resumption of the batches."""

import itertools
import json
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlif_jax.data.pipeline import Mixture, Share, Subset, problem_batches
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


def mixture_of(weights, size: int = 500) -> Mixture:
    """Source n, counted from 0, has n problems more than `size`, with ids from 1000 n on.

    Grain's shuffling takes 65536 / size steps a problem when there are fewer than 65536.
    """
    shares = []
    for n, weight in enumerate(weights):
        problems = [Problem(str(1000 * n + i), "", ()) for i in range(size + n)]
        shares.append(Share(f"source {n}", problems, weight))
    return Mixture(shares)


def test_a_mixture_of_one_source_is_read_as_the_source():
    one = Mixture([Share("a", source_of(30), 0.2)])
    assert ids(problem_batches(one, 7, seed=4), 20) == ids(
        problem_batches(source_of(30), 7, seed=4), 20
    )
    assert flat(problem_batches(one, 7, seed=4, epochs=2)) == flat(
        problem_batches(source_of(30), 7, seed=4, epochs=2)
    )


weights = st.lists(
    st.one_of(
        st.integers(1, 20),
        st.decimals("0.01", 5, places=2).map(float),
        st.floats(1e-3, 1e3, allow_subnormal=False),
    ),
    min_size=2,
    max_size=5,
)


@settings(deadline=None, max_examples=40)
@given(weights, st.integers(0, 2**32))
@example([1, 1], 0)
@example([0.7, 0.2, 0.1], 0)
@example([1, 1.009], 0)  # Grain's own mixing makes these equal
@example([1, 1, 1, 1, 1e-3], 0)
def test_shares_are_those_of_the_weights(weights, seed):
    """A source is off its share by fewer problems than there are sources, and after whole rounds
    of the weights by none.
    """
    mixture = mixture_of(weights)
    exact = [Fraction(str(weight)) for weight in weights]
    parts = [weight / sum(exact) for weight in exact]
    turns = math.lcm(*(part.denominator for part in parts))
    count = min(300, turns)
    seen = Counter()
    for k, name in enumerate(flat(problem_batches(mixture, count, seed), 1), start=1):
        seen[name // 1000] += 1
        assert all(abs(seen[n] - k * part) < len(parts) for n, part in enumerate(parts))
    if count == turns:
        assert [seen[n] for n in range(len(parts))] == [turns * part for part in parts]


def test_long_stretches_have_exact_shares():
    mixture = mixture_of([0.75, 0.2, 0.05])
    stream = flat(problem_batches(mixture, 64, seed=1), 125)
    assert Counter(name // 1000 for name in stream) == {0: 6000, 1: 1600, 2: 400}


@settings(deadline=None, max_examples=10)
@given(weights, st.integers(0, 2**32))
def test_each_source_is_read_in_permutations_of_its_own(weights, seed):
    mixture = mixture_of(weights, 20)
    stream = flat(problem_batches(mixture, 100, seed), 2)
    for n, share in enumerate(mixture.shares):
        own, size = [name for name in stream if name // 1000 == n], len(share.source)
        for start in range(0, len(own), size):
            epoch = own[start : start + size]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= {1000 * n + i for i in range(size)}


def test_sources_of_the_same_size_are_shuffled_apart():
    shares = [Share(name, source_of(40)) for name in ("a", "b")]
    stream = flat(problem_batches(Mixture(shares), 80, seed=0), 1)
    assert sorted(stream[0::2]) == sorted(stream[1::2]) == list(range(40))
    assert stream[0::2] != stream[1::2]


def test_order_of_a_mixture_is_the_same_everywhere():
    """A stored order, as for a single source; the weights are 2 : 1 : 1."""
    assert flat(problem_batches(mixture_of([0.5, 0.25, 0.25], 4), 8, seed=0), 2) == [
        *(2, 1002, 3, 2001, 1, 1003, 0, 2002),
        *(3, 1000, 2, 2000, 0, 1001, 1, 2004),
    ]


@settings(deadline=None, max_examples=15)
@given(weights, st.integers(1, 4), st.integers(0, 9))
def test_processes_share_one_stream_of_a_mixture(weights, processes, seed):
    mixture = mixture_of(weights)
    whole = flat(problem_batches(mixture, 12, seed), 5)
    parts = [
        flat(problem_batches(mixture, 12 // processes, seed, p, processes), 5)
        for p in range(processes)
    ]
    assert all(part == whole[p::processes] for p, part in enumerate(parts))


@settings(deadline=None, max_examples=15)
@given(weights, st.integers(1, 5), st.integers(0, 9), st.integers(1, 3))
def test_a_mixture_resumes_at_any_position(weights, batch_size, before, processes):
    mixture = mixture_of(weights)

    def start():
        return problem_batches(mixture, batch_size, 5, processes - 1, processes)

    uninterrupted = ids(start(), before + 4)
    first = start()
    ids(first, before)
    resumed = start()
    next(resumed)  # what was read ahead before is forgotten
    resumed.set_state(json.loads(json.dumps(first.get_state())))
    assert ids(resumed, 4) == uninterrupted[before:]


class Unreadable(list):
    """Problems, of which one cannot be decoded."""

    def __getitem__(self, index):
        problem = super().__getitem__(index)
        if problem.id == "3":
            raise UserError("problem 3 is broken")
        return problem


def test_an_error_read_ahead_is_raised_in_its_turn():
    order = flat(problem_batches(source_of(8), 1, seed=0), 8)
    batches = problem_batches(Unreadable(source_of(8)), 1, seed=0)
    assert flat(batches, order.index(3)) == order[: order.index(3)]
    with pytest.raises(UserError, match="problem 3 is broken"):
        next(batches)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "at least one problem set"),
        ([1.0, 0.0], r"the weight 0\.0 for 'source 1'; weights are positive"),
        ([-1, -2.5], r"the weight -1 for 'source 0', the weight -2\.5 for 'source 1'"),
        ([math.nan], "the weight nan for 'source 0'"),
        ([math.inf], "the weight inf for 'source 0'"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(UserError, match=message):
        mixture_of(weights)


def test_repeated_names():
    shares = [Share(name, source_of(2)) for name in ("a", "b", "a", "c", "c")]
    with pytest.raises(UserError, match="names 'a', 'c' more than once"):
        Mixture(shares)


def test_an_empty_source_of_a_mixture():
    mixture = Mixture([Share("full", source_of(2)), Share("empty", [])])
    with pytest.raises(UserError, match="no problems of 'empty' to train on"):
        problem_batches(mixture, 2, seed=0)


def test_a_mixture_has_no_epochs():
    with pytest.raises(UserError, match="2 problem sets has no common epoch, so epochs=3"):
        problem_batches(mixture_of([1, 1]), 2, seed=0, epochs=3)


def test_a_subset_has_its_own_order_and_epochs():
    subset = Subset(source_of(9), [7, 0, 3])
    assert len(subset) == 3
    assert [subset[i].id for i in range(3)] == ["7", "0", "3"]
    assert sorted(flat(problem_batches(subset, 2, seed=0, epochs=1))) == [0, 3, 7]


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
