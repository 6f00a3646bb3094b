"""How far a long count is: a bar on a terminal, now and then a line elsewhere."""

import os
import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rlif_jax.console.progress import format_duration

LINE_EVERY_S = (2.0, 60.0)
"""Seconds between lines of progress at least, and at most."""


class Meter:
    """Counts from `done` to `total` in sight of whoever watches; a context manager.

    Elsewhere than on a terminal a line comes with each tenth of the work, but neither right after
    another nor later than `LINE_EVERY_S`. `title` stands before the bar, `unit` is what is counted.
    `clock` gives seconds.
    """

    def __init__(
        self,
        title: str,
        unit: str,
        done: int,
        total: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        watched = sys.stdout.isatty() and not os.environ.get("CI")
        self._console = console or Console(force_interactive=None if watched else False)
        self._title, self._unit, self._clock = title, unit, clock
        self._begun = self._done = done
        self._total = total
        self._started = self._said_at = clock()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._bar = Progress(
                TextColumn(self._title),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.add_task("", total=self._total, completed=self._done)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def count(self, state: str) -> None:
        """One more is done; `state` says what has come of all so far."""
        self._done += 1
        now = self._clock()
        state = f"{state}  {self.rate():.2f} {self._unit}/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=1, description=state)
            return
        tenth = self._done * 10 // self._total > (self._done - 1) * 10 // self._total
        if now - self._said_at >= LINE_EVERY_S[0 if tenth else 1]:
            self._said_at = now
            left = (self._total - self._done) / max(self.rate(), 1e-9)
            self.note(f"{self._done}/{self._total}  {state}  left {format_duration(left)}")

    @property
    def seconds(self) -> float:
        """Time since the start of this run."""
        return max(self._clock() - self._started, 1e-9)

    def rate(self) -> float:
        """How many a second in this run."""
        return (self._done - self._begun) / self.seconds
