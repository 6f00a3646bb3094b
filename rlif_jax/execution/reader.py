"""The process that reads programs for the judge: whether they can carry anything over.

A parser is too much to expose to hostile text in this process, and a fork that parses would pay for
every page of memory that it touches; so one process, shut in like the others, reads all programs
and runs none.
"""

import contextlib
import threading
import time
from pathlib import Path

from rlif_jax.execution.process import memory_file
from rlif_jax.execution.worker import SandboxError, Worker, ZygoteLost

READ_S = 10.0


class Reader:
    """One reading process, for any number of threads; `close` ends it."""

    def __init__(self, scratch: Path, memory_bytes: int):
        """Start it without waiting for it. Raises SandboxError when that is impossible."""
        self._start = lambda: Worker(scratch, memory_bytes, reads=True)
        self._lock = threading.Lock()
        self._worker = self._start()

    def carries_nothing_over(self, code: str) -> bool:
        """Tell whether the program is seen to keep nothing from one run to the next.

        False is always a safe answer, and the one for a program at which the reader ends or hangs.
        """
        with self._lock, contextlib.ExitStack() as stack:
            try:
                _ = self._worker.isolation
                self._worker.send({"do": "read"}, [memory_file(stack, code)])
                return self._worker.receive(time.monotonic() + READ_S)["again"]
            except (ZygoteLost, SandboxError):
                self._worker.close()
                self._worker = self._start()
                return False

    def hang_up(self) -> None:
        """Let it end; a program that is being read is not answered for."""
        self._worker.hang_up()

    def close(self) -> None:
        """End it and wait for that."""
        self._worker.hang_up()
        with self._lock:
            self._worker.close()
