"""Which sequence sits in which slot, with which pages: the host's side of continuous batching.

Plain Python and NumPy. Requests wait by prompt. Every row shard of the mesh has its own slots and
its own pool, and hands out one prompt at a time: the prompt is computed on the shard when its first
sample gets a slot there, and its pages are shared by all its samples on that shard. A shard without
a prompt takes one that no other is handing out; if every waiting prompt is taken, it helps another
shard with its prompt.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from rlif_jax.batch import TokenStats
from rlif_jax.sampler import pages as paging
from rlif_jax.sampler.drafts import NONE as NO_TOKEN
from rlif_jax.sampler.pool_shape import PoolShape, bucket
from rlif_jax.sampler.requests import Finished, Request, Stop
from rlif_jax.sampler.slots import Admission

_NARROWEST = 4
"""Slots of a shard below which a narrower stage is not worth compiling."""

_REFILL_SHARE = 32
"""A chunk is left to refill slots once one in this many has ended."""


@dataclass(frozen=True)
class Prefill:
    """One prompt for each row shard that has `length` > 0; see `decode.make_prefill`."""

    tokens: np.ndarray
    length: np.ndarray
    pages: np.ndarray
    page_count: np.ndarray


@dataclass
class _Live:
    """A sequence in a slot: its pages, and what it has drawn so far.

    Its pages hold `room` tokens of its completion. `tokens` and `stats` have `limit` entries, of
    which the first `recorded` are filled.
    """

    request: int
    limit: int
    pages: paging.Holding
    room: int
    tokens: np.ndarray
    stats: TokenStats | None = None
    drawn: int = 0
    recorded: int = 0


@dataclass(frozen=True)
class Drawn:
    """What a sequence has drawn in a chunk: `count` tokens, in row `row` of the chunk's arrays.

    `over`: it is not to continue.
    """

    sequence: _Live
    row: int
    count: int
    over: bool


@dataclass
class _Shard:
    """The slots of one row shard, its pool, and the prompt it is handing out."""

    pages: paging.Pages
    slots: list[_Live | None]
    prompt: int = -1
    prompt_pages: tuple[int, ...] = ()

    @property
    def empty(self) -> list[int]:
        return [i for i, live in enumerate(self.slots) if live is None]


class Schedule:
    """A run of requests through slots. A slot's row in device arrays is shard * slots + slot."""

    def __init__(
        self,
        shape: PoolShape,
        shards: int,
        prompts: Sequence[Sequence[int]],
        requests: Sequence[Request],
        *,
        chunk: int,
        narrow_for: int,
        drafts: bool,
        eos_ids: Sequence[int],
        stop: Stop | None,
    ):
        self._shape, self._page, self._chunk = shape, shape.page, chunk
        self._prompts, self._requests = prompts, requests
        self._narrow_for, self._eos_ids, self._stop = narrow_for, eos_ids, stop
        self._drafts = drafts
        self._waiting: dict[int, deque[int]] = {}
        for index, request in enumerate(requests):
            self._waiting.setdefault(request.prompt, deque()).append(index)
        each = shape.slots // shards
        self._shards = [_Shard(paging.Pages(shape.pages), [None] * each) for _ in range(shards)]
        self._table_BJ = np.zeros((shape.slots, shape.columns), np.int32)

    @property
    def each(self) -> int:
        """Slots of a row shard in the stage that runs now."""
        return len(self._shards[0].slots)

    @property
    def width(self) -> int:
        """Slots of the stage that runs now."""
        return self.each * len(self._shards)

    @property
    def live(self) -> int:
        """Sequences in slots."""
        return self.width - sum(len(shard.empty) for shard in self._shards)

    @property
    def unfinished(self) -> bool:
        """Whether anything waits or is in a slot."""
        return bool(self._waiting) or self.live > 0

    @property
    def reads_texts(self) -> bool:
        """Whether what has been drawn decides what continues: then it is recorded first."""
        return self._stop is not None

    # ---- admission

    def next_round(self) -> tuple[list[Prefill], Admission | None] | None:
        """Put waiting requests into free slots, of at most one prompt on each shard.

        Returns the prompts to compute, by width, and the sequences to start behind them; None when
        nothing more can be put anywhere.
        """
        for shard in self._shards:
            if shard.prompt not in self._waiting:
                self._drop_prompt(shard)
        fresh, new_prompts = [], []
        for n in sorted(range(len(self._shards)), key=lambda n: -len(self._shards[n].empty)):
            shard = self._shards[n]
            if not (shard.empty and self._waiting):
                continue
            if shard.prompt not in self._waiting:
                if not self._take_prompt(shard):
                    continue
                new_prompts.append(n)
            started = [(n, slot, self._start(n, slot)) for slot in shard.empty]
            fresh += [(n, slot, live) for n, slot, live in started if live is not None]
        if not fresh and not new_prompts:
            return None
        return self._prefills(new_prompts), self._admission(fresh) if fresh else None

    def _drop_prompt(self, shard: _Shard) -> None:
        shard.pages.release(shard.prompt_pages)
        shard.prompt, shard.prompt_pages = -1, ()

    def _take_prompt(self, shard: _Shard) -> bool:
        """Give a shard a prompt to hand out, if there are pages for it."""
        self._drop_prompt(shard)  # another shard has just started the last sample of that one
        held = {other.prompt for other in self._shards}
        most = max(self._waiting, key=lambda prompt: len(self._waiting[prompt]))
        prompt = next((prompt for prompt in self._waiting if prompt not in held), most)
        first, length = self._requests[self._waiting[prompt][0]], len(self._prompts[prompt])
        own = self._shape.own_pages(length, first.limit)
        taken = shard.pages.take_prompt(-(-length // self._page), own)
        if taken is None:
            return False
        shard.prompt, shard.prompt_pages = prompt, taken
        return True

    def _start(self, n: int, slot: int) -> _Live | None:
        """Start the next request of a shard's prompt in a slot, if there are pages for it."""
        shard = self._shards[n]
        waiting = self._waiting.get(shard.prompt)
        if not waiting:
            return None
        request, length = self._requests[waiting[0]], len(self._prompts[shard.prompt])
        shared = shard.prompt_pages[: length // self._page]
        own = self._shape.own_pages(length, request.limit)
        holding = shard.pages.start(shared, most=own, first=1)
        if holding is None:
            return None
        room = self._page * len(holding.pages) - length
        tokens = np.empty(request.limit, np.int32)  # memory that is not written is not taken
        live = _Live(waiting.popleft(), request.limit, holding, room, tokens)
        shard.slots[slot] = live
        self._table_BJ[n * self.each + slot, : len(holding.pages)] = holding.pages
        if not waiting:
            del self._waiting[shard.prompt]
        return live

    def _prefills(self, new_prompts: Sequence[int]) -> list[Prefill]:
        """The prompts that these shards have taken on, those of one width together."""
        by_width: dict[int, list[int]] = {}
        for n in new_prompts:
            length = len(self._prompts[self._shards[n].prompt])
            by_width.setdefault(bucket(length, self._page), []).append(n)
        return [self._prefill(width, members) for width, members in by_width.items()]

    def _prefill(self, width: int, members: Sequence[int]) -> Prefill:
        count = len(self._shards)
        call = Prefill(
            tokens=np.zeros((count, width), np.int32),
            length=np.zeros(count, np.int32),
            pages=np.zeros((count, width // self._page), np.int32),
            page_count=np.zeros(count, np.int32),
        )
        for n in members:
            prompt, pages = self._prompts[self._shards[n].prompt], self._shards[n].prompt_pages
            call.tokens[n, : len(prompt)] = prompt
            call.pages[n, : len(pages)] = pages
            call.length[n], call.page_count[n] = len(prompt), len(pages)
        return call

    def _admission(self, fresh: Sequence[tuple[int, int, _Live]]) -> Admission:
        B = self.width
        new = Admission(
            fresh=np.zeros(B, bool),
            length=np.zeros(B, np.int32),
            limit=np.zeros(B, np.int32),
            key=np.zeros((B, 2), np.uint32),
            copy_from=np.zeros(B, np.int32),
            copy_to=np.zeros(B, np.int32),
            copies=np.zeros(len(self._shards), np.int32),
            prompt=self._prompts_behind(fresh) if self._drafts else None,
        )
        for n, slot, live in fresh:
            shard, row = self._shards[n], n * self.each + slot
            request = self._requests[live.request]
            length = len(self._prompts[request.prompt])
            new.fresh[row], new.length[row] = True, length
            new.limit[row], new.key[row] = request.limit, request.key
            if length % self._page:  # the prompt ends inside a page: each sample has its own copy
                at = n * self.each + new.copies[n]
                new.copy_from[at] = shard.prompt_pages[-1]
                new.copy_to[at] = live.pages.own[0]
                new.copies[n] += 1
        return new

    def _prompts_behind(self, fresh: Sequence[tuple[int, int, _Live]]) -> np.ndarray:
        """Of shards with fresh sequences the prompt, at the end of its row; see `Admission`."""
        prompt_NT = np.full(
            (len(self._shards), self._shape.columns * self._page), NO_TOKEN, np.int32
        )
        for n in {n for n, _, _ in fresh}:
            prompt = self._prompts[self._shards[n].prompt]
            prompt_NT[n, -len(prompt) :] = prompt
        return prompt_NT

    # ---- decoding

    def narrow(self) -> np.ndarray | None:
        """Halve the slots while nothing waits and each shard's sequences fit into half of them.

        Returns the rows that are kept, in their new order; None if all are.
        """
        if not self._may_shrink:
            return None
        each = wanted = self.each
        most = max(each - len(shard.empty) for shard in self._shards)
        while wanted % 2 == 0 and wanted > _NARROWEST and most <= wanted // 2:
            wanted //= 2
        if wanted == each:
            return None
        rows = []
        for n, shard in enumerate(self._shards):
            taken = [i for i in range(each) if shard.slots[i] is not None]
            kept = (taken + shard.empty)[:wanted]
            rows += [n * each + i for i in kept]
            shard.slots = [shard.slots[i] for i in kept]
        self._table_BJ = self._table_BJ[rows]
        return np.asarray(rows, np.int32)

    @property
    def _may_shrink(self) -> bool:
        if self._waiting or not self._narrow_for:
            return False
        slots = (live for shard in self._shards for live in shard.slots if live is not None)
        return any(live.limit - live.drawn >= self._narrow_for for live in slots)

    @property
    def leave_after(self) -> int:
        """How many sequences have to end before there is something to do here."""
        if self._waiting:
            return max(1, self.width // _REFILL_SHARE)
        if self._may_shrink and self.each > _NARROWEST and self.each % 2 == 0:
            # At least this many, before each shard's sequences fit into half of its slots.
            over = [self.each // 2 - len(shard.empty) for shard in self._shards]
            return max(1, sum(count for count in over if count > 0))
        return self.width

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The page table int32 [B, J] of the next chunk, and bool [B] which slots have their pages.

        A slot without all the pages that it may fill in the chunk waits.
        """
        run_B = np.zeros(self.width, bool)
        for n, shard in enumerate(self._shards):
            for row, live in enumerate(shard.slots, n * self.each):
                if live is not None:
                    run_B[row] = self._has_room(live, shard.pages, row)
        # A copy, for a device may still read it when the next chunk's pages are written.
        return self._table_BJ.copy(), run_B

    def _has_room(self, live: _Live, pool: paging.Pages, row: int) -> bool:
        """Whether a sequence has the pages of the next chunk, or can be given them now."""
        ahead = min(live.drawn + self._chunk, live.limit)
        if ahead <= live.room:
            return True
        length = len(self._prompts[self._requests[live.request].prompt])
        if not pool.grow(live.pages, self._shape.own_pages(length, ahead)):
            return False
        pages = live.pages.pages
        self._table_BJ[row, : len(pages)] = pages
        live.room = self._page * len(pages) - length
        return True

    def standing(self) -> tuple[np.ndarray, np.ndarray]:
        """The request in each slot, -1 for none, and how many tokens it has drawn: both int [B]."""
        slots = [live for shard in self._shards for live in shard.slots]
        requests = [-1 if live is None else live.request for live in slots]
        return np.array(requests), np.array([0 if live is None else live.drawn for live in slots])

    def settle(self, count_B: np.ndarray, live_B: np.ndarray) -> list[Drawn]:
        """Take note of how far a chunk has brought each slot, and free those that are over.

        What they have drawn is for `record`, before the next chunk is settled.
        """
        drawn = []
        rows = zip(count_B.tolist(), live_B.tolist(), strict=True)
        for row, (count, goes_on) in enumerate(rows):
            live = self._shards[row // self.each].slots[row % self.each]
            if live is None or not count:
                continue
            live.drawn += count
            drawn.append(Drawn(live, row, count, not goes_on))
            if not goes_on:
                self._free(row)
        return drawn

    def record(
        self, drawn: Sequence[Drawn], tokens_BK: np.ndarray, stats_BK: TokenStats | None
    ) -> list[Finished]:
        """Write down what a chunk has drawn; returns the sequences that are over."""
        parts = jax.tree.leaves((tokens_BK, stats_BK))
        finished = []
        for one in drawn:
            live = one.sequence
            if stats_BK is not None and live.stats is None:
                empty = (np.empty(live.limit, np.float32) for _ in parts[1:])
                live.stats = jax.tree.unflatten(jax.tree.structure(stats_BK), empty)
            to = slice(live.recorded, live.recorded + one.count)
            for whole, part in zip(jax.tree.leaves((live.tokens, live.stats)), parts, strict=True):
                whole[to] = part[one.row, : one.count]
            live.recorded = to.stop
            if (done := self._finished(one)) is not None:
                finished.append(done)
        return finished

    def _free(self, row: int) -> None:
        """Take a sequence out of its slot."""
        shard, slot = self._shards[row // self.each], row % self.each
        live = shard.slots[slot]
        assert live is not None
        shard.pages.end(live.pages)
        shard.slots[slot] = None
        self._table_BJ[row] = 0

    def _finished(self, one: Drawn) -> Finished | None:
        """The sample, cut where it stops, if it is over."""
        live, keep = one.sequence, None
        tokens = live.tokens[: live.recorded]
        if self._stop is not None:
            prompt = self._prompts[self._requests[live.request].prompt]
            keep = self._stop(prompt, tokens, len(tokens) - one.count)
            if keep is not None and not one.over:
                self._free(one.row)
        if keep is None and not one.over:
            return None
        truncated = keep is None and tokens[-1] not in self._eos_ids
        # Copies, for what has room for the limit is not to be held longer.
        tokens, stats = jax.tree.map(
            lambda x: x[: live.recorded][:keep].copy(), (tokens, live.stats)
        )
        return Finished(live.request, tokens, stats, truncated)
