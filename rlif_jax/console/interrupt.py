"""Stopping when Ctrl-C or a termination signal arrives: at once, or at a safe place."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from rlif_jax.console.notice import Notice
from rlif_jax.distributed import any_of


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
    sets a flag. The second SIGINT stops at once, as without this class. Whoever sends SIGTERM, as a
    cloud does before it takes a machine away, sends SIGKILL some seconds later: with `grace_s` the
    process ends by itself after so many, wherever it is. Enter it in the main thread.

    A signal to one process stops all of them: with `together` every process has to call `check` at
    the same places.
    """

    def __init__(self, notice: Notice, grace_s: float = 0, together: bool = False):
        self._notice, self._together = notice, together
        self._asked = False
        self._before: dict[int, Any] = {}
        self._last = threading.Timer(grace_s, _end, [grace_s]) if grace_s else None
        if self._last:
            self._last.daemon = True

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
        if self._last:
            self._last.cancel()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM and self._last:
            with contextlib.suppress(RuntimeError):  # it has started before
                self._last.start()
        self._asked = True
        self._notice("stopping at the next safe place; press Ctrl-C again to stop at once")

    def check(self) -> None:
        """Raise `Interrupted` if a stop was asked for."""
        if any_of(self._asked) if self._together else self._asked:
            raise Interrupted


def _end(grace_s: float) -> None:
    sys.stdout.flush()
    print(
        f"SIGTERM came {grace_s:g} s ago and the step has not ended: the run ends here. The same "
        "command resumes from its newest checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(130)
