"""Stopping when Ctrl-C or a termination signal arrives: at once, or at a safe place."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from rlif_jax.console.notice import Notice


class Interrupted(Exception):
    """Raised by `StopRequest.check` once a stop was asked for."""


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt inside, so that it stops at once and cleans up.

    For work that has no state to lose. Enter it in the main thread.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """Turns the first SIGINT or SIGTERM into `Interrupted` at the next `check`; a context manager.

    A signal in the middle of an update would lose the donated training state, so the first one only
    sets a flag. The second SIGINT stops at once, as without this class. Enter it in the main
    thread.
    """

    def __init__(self, notice: Notice):
        self._notice = notice
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        self._notice("stopping at the next safe place; press Ctrl-C again to stop at once")

    def check(self) -> None:
        """Raise `Interrupted` if a stop was asked for."""
        if self._asked:
            raise Interrupted
