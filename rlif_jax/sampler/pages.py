"""Which pages of a pool belong to whom: allocation that can never leave a sequence stuck.

Sequences get pages as they grow, not all at the start, so that a pool holds many more of them than
it could hold at their longest. What is promised is that all can be finished one after another: a
page is granted only if that still holds afterwards (the banker's algorithm, Dijkstra, EWD-623).
A sequence that is refused waits; some other one can always continue.
"""

from dataclasses import dataclass, field


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


class Pages:
    """The pages 1 to `count` - 1 of a pool; page 0, the null page, is never given away."""

    def __init__(self, count: int):
        self._free = list(range(count - 1, 0, -1))
        self._holders: dict[int, int] = {}
        self._live: list[Holding] = []
        self._owed = 0  # pages that live sequences can still come to need

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def take_prompt(self, pages: int, then: int) -> tuple[int, ...] | None:
        """Pages for a prompt, to be shared; None if too few are free now.

        `then` is what one sequence of this prompt can come to need on top.
        """
        if pages > self.free or not self._can_finish(self.free - pages, (then, 0)):
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
        if first > self.free or not self._can_finish(self.free - first, (most - first, first)):
            return None
        sequence = Holding(shared, most)
        self.hold(shared)
        self._live.append(sequence)
        self._owed += most
        self._grant(sequence, first)
        return sequence

    def grow(self, sequence: Holding, own: int) -> bool:
        """Give a sequence `own` pages of its own in all; False, and none, if it has to wait."""
        more = own - len(sequence.own)
        if more <= 0:
            return True
        if own > sequence.most:
            raise ValueError(f"{own} pages for a sequence that was to need at most {sequence.most}")
        if more > self.free:
            return False
        self._grant(sequence, more)
        if self._can_finish(self.free):
            return True
        for _ in range(more):
            self.release((sequence.own.pop(),))
        self._owed += more
        return False

    def end(self, sequence: Holding) -> None:
        """Take back all that a sequence holds."""
        self._live = [other for other in self._live if other is not sequence]
        self._owed -= sequence.most - len(sequence.own)
        self.release(tuple(sequence.own))
        self.release(sequence.shared)

    def _take(self) -> int:
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _grant(self, sequence: Holding, count: int) -> None:
        sequence.own += [self._take() for _ in range(count)]
        self._owed -= count

    def _can_finish(self, free: int, *others: tuple[int, int]) -> bool:
        """Whether all sequences can be finished in some order with `free` pages at the start.

        `others` are more sequences, (pages still needed, pages held). Shared pages are counted as
        if they never came back.
        """
        if self._owed + sum(need for need, _ in others) <= free:
            return True  # nothing is short
        needs = [(s.most - len(s.own), len(s.own)) for s in self._live]
        for need, held in sorted([*needs, *others]):
            if need > free:
                return False
            free += held
        return True
