"""The end of a run that hangs: all stacks are printed, and the launcher may restart it."""

import faulthandler
from typing import Self


class Watchdog:
    """Ends the process when nothing has called `alive` for `seconds`; 0: never.

    A context manager. The standard library's fault handler prints the stack of every thread to
    standard error and ends the process with status 1, even where a thread holds the interpreter in
    a collective that another host has left. The other processes of the run end with it.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds

    def __enter__(self) -> Self:
        self.alive()
        return self

    def alive(self) -> None:
        """Start counting from now."""
        if self._seconds:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=2)

    def __exit__(self, *exception: object) -> None:
        faulthandler.cancel_dump_traceback_later()
