"""A progress counter: a bar on a terminal that a person watches, now and then a line elsewhere."""

import time
from collections.abc import Callable
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from rlif_jax.console.screen import Screen, format_duration

LINE_EVERY_S = (2.0, 60.0)
"""Least and most seconds between lines of progress."""
PHASE_LINE_S = 10.0
"""Least seconds between lines on the phases of a work."""


class _Bar:
    """A bar that is drawn while a person watches, and gone when it is stopped; a context manager.

    `clock` gives seconds.
    """

    def __init__(self, screen: Screen, clock: Callable[[], float], *columns: ProgressColumn):
        self._screen, self._clock = screen, clock
        self._said_at = clock()
        self._bar = Progress(*columns, console=screen.console, transient=True)

    def __enter__(self) -> Self:
        if self._screen.watched:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._screen.watched:
            self._bar.stop()


class Meter(_Bar):
    """Counts from `done` to `total`; a context manager.

    Where nobody watches, a line comes with each tenth of the work, but neither right after another
    nor later than `LINE_EVERY_S`. `title` stands before the bar, `unit` is what is counted.
    `clock` gives seconds.
    """

    def __init__(
        self,
        screen: Screen,
        title: str,
        unit: str,
        done: int,
        total: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        columns = TextColumn(title), BarColumn(bar_width=None), MofNCompleteColumn()
        columns += TextColumn("{task.description}"), TimeRemainingColumn()
        super().__init__(screen, clock, *columns)
        self._unit, self._total = unit, total
        self._begun = self._done = done
        self._started = self._said_at
        self._task = self._bar.add_task("", total=total, completed=done)

    def count(self, state: str) -> None:
        """One more is done; `state` says what has come of all so far."""
        self._done += 1
        now = self._clock()
        state = f"{state}  {self.rate():.2f} {self._unit}/s"
        if self._screen.watched:
            self._bar.update(self._task, advance=1, description=state)
            return
        tenth = self._done * 10 // self._total > (self._done - 1) * 10 // self._total
        if now - self._said_at >= LINE_EVERY_S[0 if tenth else 1]:
            self._said_at = now
            left = format_duration((self._total - self._done) / max(self.rate(), 1e-9))
            self._screen.note(f"{self._done}/{self._total}  {state}  left {left}")

    @property
    def seconds(self) -> float:
        """Time since the start of this run."""
        return max(self._clock() - self._started, 1e-9)

    def rate(self) -> float:
        """How many a second in this run."""
        return (self._done - self._begun) / self.seconds


class Phases(_Bar):
    """How far a work of several phases is, as its `Notice`; a context manager.

    Where nobody watches, a line comes every `PHASE_LINE_S` at most. `clock` gives seconds.
    """

    def __init__(self, screen: Screen, clock: Callable[[], float] = time.monotonic):
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
        super().__init__(screen, clock, *columns, TimeRemainingColumn())
        self._task = self._bar.add_task("")

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show a phase and, in percent, how much of it is done."""
        if self._screen.watched:
            self._bar.update(self._task, description=text, completed=done or 0, total=total)
        elif self._clock() - self._said_at > PHASE_LINE_S:
            self._said_at = self._clock()
            self._screen.note(f"{text}: {100 * (done or 0) / total:.0f}%" if total else text)
