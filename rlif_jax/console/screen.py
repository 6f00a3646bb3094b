"""Where a command shows lines, bars and tables: a terminal that a person watches, or a pipe."""

import os
import sys

from rich.console import Console


class Screen:
    """Standard output, or standard error; what commands create and pass to all that shows things.

    It is `watched`, so that bars are drawn and redrawn, on a terminal outside of CI, whatever
    FORCE_COLOR says. One that is `silent` shows nothing. Tests give a `console` of their own, which
    decides by itself.
    """

    def __init__(
        self, console: Console | None = None, *, stderr: bool = False, silent: bool = False
    ):
        stream = sys.stderr if stderr else sys.stdout
        watched = stream.isatty() and not os.environ.get("CI") and not silent
        self.console = console or Console(
            stderr=stderr, quiet=silent, force_interactive=None if watched else False
        )

    @property
    def watched(self) -> bool:
        """Whether a person sees what is drawn and redrawn."""
        return self.console.is_interactive

    def note(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Print a line that stays; a `Notice`. In a pipe it stays one line, at any length."""
        counted = text if done is None else f"{text} {done}/{total}"
        self.console.print(counted, soft_wrap=True, markup=False, highlight=False, emoji=False)


def format_duration(seconds: float) -> str:
    """Seconds as 7s, 2m40s or 3h05m."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
