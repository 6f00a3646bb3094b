"""Which pages of a pool belong to whom: allocation that can never leave a sequence stuck.

Sequences get pages as they grow, not all at the start, so that a pool holds many more of them than
it could hold at their longest. What is promised is that all can be finished one after another: a
page is granted only if that still holds afterwards (the banker's algorithm, Dijkstra, EWD-623).
A sequence that is refused waits; some other one can always continue.
"""

from dataclasses import dataclass, field

import numpy as np

_NOBODY = 1 << 40
"""Pages to spare where no sequence asks."""


@dataclass
class Holding:
    """Pages of one sequence: those it shares with others of its prompt, then its own.

    `most` is how many pages of its own it can come to need.
    """

    shared: tuple[int, ...]
    most: int
    own: list[int] = field(default_factory=list)

    @property
    def pages(self) -> list[int]:
        """The sequence's pages in order, as its row of the page table has them."""
        return [*self.shared, *self.own]

    @property
    def need(self) -> int:
        """Pages that it can still come to need."""
        return self.most - len(self.own)


class Pages:
    """The pages 1 to `count` - 1 of a pool; page 0, the null page, is never given away."""

    def __init__(self, count: int):
        self._free = list(range(count - 1, 0, -1))
        self._holders: dict[int, int] = {}
        # Of the live sequences that can still come to need n pages: how many there are, at [0, n],
        # and how many pages of their own they hold, at [1, n].
        self._by_need = np.zeros((2, 1), int)
        self._owed = 0  # pages that all of them can still come to need
        self._order: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def take_prompt(self, pages: int, then: int) -> tuple[int, ...] | None:
        """Pages for a prompt, to be shared; None if too few are free now.

        `then` is what one sequence of this prompt can come to need on top.
        """
        if pages > self.free or not self._can_finish(pages, then, given_back=False):
            return None
        return tuple(self._take() for _ in range(pages))

    def hold(self, pages: tuple[int, ...]) -> None:
        """One more holder of shared pages."""
        for page in pages:
            self._holders[page] += 1

    def release(self, pages: tuple[int, ...]) -> None:
        """One holder less; a page without any is free again."""
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                del self._holders[page]
                self._free.append(page)

    def start(self, shared: tuple[int, ...], most: int, first: int) -> Holding | None:
        """A new sequence behind shared pages, with `first` of at most `most` pages of its own.

        None if it has to wait.
        """
        if first > self.free or not self._can_finish(first, most - first):
            return None
        sequence = Holding(shared, most)
        self.hold(shared)
        self._grant(sequence, first)
        self._count(sequence.need, first, 1)
        return sequence

    def grow(self, sequence: Holding, own: int) -> bool:
        """Give a sequence `own` pages of its own in all; False, and none, if it has to wait."""
        more, held, need = own - len(sequence.own), len(sequence.own), sequence.need
        if more <= 0:
            return True
        if more > need:
            raise ValueError(f"{own} pages for a sequence that was to need at most {sequence.most}")
        if more > self.free or not (self._owed <= self.free or self._can_finish(more, need - more)):
            return False
        self._count(need, held, -1)
        self._grant(sequence, more)
        self._count(sequence.need, own, 1)
        return True

    def end(self, sequence: Holding) -> None:
        """Take back all that a sequence holds."""
        self._count(sequence.need, len(sequence.own), -1)
        self.release(tuple(sequence.own))
        self.release(sequence.shared)

    def _take(self) -> int:
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _grant(self, sequence: Holding, count: int) -> None:
        sequence.own += [self._take() for _ in range(count)]

    def _count(self, need: int, held: int, times: int) -> None:
        """Count a sequence with these pages among the live ones, or no longer (-1)."""
        self._reach(need)
        self._by_need[0, need] += times
        self._by_need[1, need] += times * held
        self._owed += times * need
        self._order = None

    def _can_finish(self, taken: int, need: int, given_back: bool = True) -> bool:
        """Whether all could be finished in some order if one sequence took `taken` free pages.

        It would then need `need` more. Nobody else gains who needs no more than that; for the
        others it comes first, and leaves what it took: unless that is not `given_back`, as shared
        pages are counted.
        """
        if self._owed + need <= self.free - taken:
            return True  # nothing is short
        self._reach(need)
        before_N, spare_N = self._in_order()
        left = self.free - taken
        return bool(
            left + before_N[need] >= need and left + spare_N[need if given_back else -1] >= 0
        )

    def _in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """What sequences give back in order of need, free pages apart, both int [needs].

        Before those that need n pages have their turn; and the least, over all that need up to n,
        of that less what they need.
        """
        if self._order is None:
            sequences_N, pages_N = self._by_need
            before_N = np.cumsum(pages_N) - pages_N
            short_N = np.where(sequences_N > 0, before_N - np.arange(len(pages_N)), _NOBODY)
            self._order = before_N, np.minimum.accumulate(short_N)
        return self._order

    def _reach(self, need: int) -> None:
        """Have places for sequences that need this many pages."""
        if (missing := need + 1 - self._by_need.shape[1]) > 0:
            self._by_need = np.pad(self._by_need, ((0, 0), (0, missing)))
            self._order = None
