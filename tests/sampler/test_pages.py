"""The page allocator: who holds what, what is refused, and that every sequence finishes."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.sampler.pages import Holding, Pages
from rlif_jax.sampler.pool_shape import PoolShape


def safe(free: int, needs: list[tuple[int, int]]) -> bool:
    """Whether some order of (pages still needed, pages held) finishes them all: all are tried."""

    def finishes(order) -> bool:
        left = free
        for need, held in order:
            if need > left:
                return False
            left += held
        return True

    return any(finishes(order) for order in itertools.permutations(needs))


@dataclass
class Workload:
    """Prompts with their samples' (most tokens, tokens until it ends), on slots over a pool.

    It asks for pages as the sampler does: a prompt when its first sample is due, then a page for
    each sequence, then as many as it may fill until the host looks again.
    """

    prompts: list[tuple[int, list[tuple[int, int]]]]
    page: int
    slots: int
    chunk: int
    spare: int
    prompt: int = -1
    prompt_pages: tuple[int, ...] = ()
    live: dict[int, tuple[int, Holding]] = field(default_factory=dict)
    drawn: dict[int, int] = field(default_factory=dict)

    def __post_init__(self):
        self.shape = PoolShape(self.slots, self.page, 0, 0, "plain", "float32")
        self.requests = [(n, *s) for n, (_, samples) in enumerate(self.prompts) for s in samples]
        self.least = max(
            -(-self.prompts[n][0] // self.page) + self.most(n, limit)
            for n, limit, _ in self.requests
        )
        self.count = 1 + self.least + self.spare
        self.pages = Pages(self.count)

    def most(self, prompt: int, tokens: int) -> int:
        return self.shape.own_pages(self.prompts[prompt][0], tokens)

    def needs(self, *others: tuple[int, int]) -> list[tuple[int, int]]:
        return [(s.most - len(s.own), len(s.own)) for _, s in self.live.values()] + [*others]

    def check_owners(self):
        """Every page has one owner, or is a prompt's and held by samples of that prompt only."""
        owner = dict.fromkeys(self.prompt_pages, ("prompt", self.prompt))
        assert len(owner) == len(self.prompt_pages)
        for request, (_, sequence) in self.live.items():
            assert sequence.pages == [*sequence.shared, *sequence.own]
            for page in sequence.shared:
                who = ("prompt", self.requests[request][0])
                assert owner.setdefault(page, who) == who
            for page in sequence.own:
                assert page not in owner
                owner[page] = ("sequence", request)
        assert all(0 < page < self.count for page in owner)
        assert self.pages.free + len(owner) == self.count - 1

    def refill(self, queue: list[int]):
        while queue and len(self.live) < self.slots:
            n, limit, _ = self.requests[queue[0]]
            length, most = self.prompts[n][0], self.most(n, limit)
            if n != self.prompt:
                self.pages.release(self.prompt_pages)
                self.prompt, self.prompt_pages = -1, ()
                want, free = -(-length // self.page), self.pages.free
                taken = self.pages.take_prompt(want, most)
                fits = want <= free and safe(free - want, self.needs((most, 0)))
                assert (taken is not None) == fits
                if taken is None:
                    break
                self.prompt, self.prompt_pages = n, taken
            free = self.pages.free
            fits = free >= 1 and safe(free - 1, self.needs((most - 1, 1)))
            sequence = self.pages.start(self.prompt_pages[: length // self.page], most, 1)
            assert (sequence is not None) == fits
            if sequence is None:
                assert self.pages.free == free
                break
            self.live[queue[0]] = length, sequence
            self.drawn[queue.pop(0)] = 0
            self.check_owners()

    def grow(self, request: int) -> bool:
        """Pages for the next chunk; refused only where all could not be finished afterwards."""
        n, limit, _ = self.requests[request]
        _, sequence = self.live[request]
        want = self.most(n, min(self.drawn[request] + self.chunk, limit))
        before, free = (list(sequence.own), list(sequence.pages)), self.pages.free
        more = max(0, want - len(sequence.own))
        others = [
            (s.most - len(s.own), len(s.own)) for _, s in self.live.values() if s is not sequence
        ]
        after = (sequence.most - len(sequence.own) - more, len(sequence.own) + more)
        granted = self.pages.grow(sequence, want)
        assert granted == (more <= free and safe(free - more, [*others, after]))
        if granted:
            assert len(sequence.own) == len(before[0]) + more
            assert sequence.own[: len(before[0])] == before[0]  # what is written stays in place
            assert self.pages.free == free - more
        else:
            assert (sequence.own, sequence.pages) == before
            assert self.pages.free == free
        self.check_owners()
        return granted

    def run(self) -> list[int]:
        """Requests in the order in which they end."""
        queue, ended = list(range(len(self.requests))), []
        while queue or self.live:
            self.refill(queue)
            run = [request for request in self.live if self.grow(request)]
            assert run  # no deadlock
            for request in run:
                _, limit, tokens = self.requests[request]
                self.drawn[request] += self.chunk
                if self.drawn[request] >= min(tokens, limit):
                    self.pages.end(self.live.pop(request)[1])
                    ended.append(request)
                    self.check_owners()
        self.pages.release(self.prompt_pages)
        return ended


SAMPLES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5)
WORKLOADS = st.builds(
    Workload,
    prompts=st.lists(st.tuples(st.integers(1, 20), SAMPLES), min_size=1, max_size=5),
    page=st.sampled_from([1, 2, 4, 8]),
    slots=st.integers(1, 5),
    chunk=st.integers(1, 12),
    spare=st.one_of(st.just(0), st.integers(0, 30)),
)


@settings(max_examples=200)
@given(WORKLOADS)
def test_every_sequence_finishes_and_no_page_is_lost_or_shared_by_strangers(workload):
    """However small the pool, as long as it holds each sequence by itself."""
    assert sorted(workload.run()) == list(range(len(workload.requests)))
    assert workload.pages.free == workload.count - 1
    # and every one of them can be given again, once
    whole = workload.pages.take_prompt(workload.count - 1, 0)
    assert sorted(whole) == list(range(1, workload.count))


def test_sequences_wait_where_all_could_be_stuck():
    """Two sequences of at most three pages in a pool of four."""
    pages = Pages(5)
    first, second = pages.start((), 3, 1), pages.start((), 3, 1)
    assert pages.grow(first, 2)
    assert pages.free == 1
    held = list(second.own)
    assert not pages.grow(second, 2)  # then neither could get its third
    assert second.own == held and pages.free == 1
    assert pages.grow(second, 1)  # it has that
    assert pages.grow(first, 3)
    assert not pages.grow(second, 2)  # none is left
    pages.end(first)
    assert pages.grow(second, 3) and pages.free == 1
    assert set(second.own).isdisjoint(pages.take_prompt(1, 0))


def test_a_prompt_needs_room_for_one_of_its_sequences():
    pages = Pages(6)
    assert pages.take_prompt(3, 3) is None and pages.take_prompt(6, 0) is None
    assert pages.free == 5
    prompt = pages.take_prompt(3, 2)
    assert pages.start(prompt[:2], 3, 1) is None
    only = pages.start(prompt[:2], 2, 1)
    assert pages.start(prompt[:2], 2, 1) is None  # one page is left, and both need it
    pages.release(prompt)  # the third page is nobody's now, the others are still the sequence's
    assert pages.free == 2
    assert pages.start((), 1, 1).own == [prompt[2]]
    pages.end(only)
    assert pages.free == 4


def test_growing_beyond_what_was_announced_is_refused():
    pages = Pages(9)
    sequence = pages.start((), 2, 1)
    with pytest.raises(ValueError, match="3 pages for a sequence that was to need at most 2"):
        pages.grow(sequence, 3)
    assert len(sequence.own) == 1 and pages.free == 7
    assert pages.grow(sequence, 2)
