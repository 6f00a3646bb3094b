"""The one callback by which work of any kind tells how it goes."""

from typing import Protocol


class Notice(Protocol):
    """Told a text, and of long work how much is `done` of how much in `total`.

    A text without counts is a line for people, or the name of a phase that begins; the caller says
    which. A callback may raise to stop the work.
    """

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None: ...


def ignore(text: str, done: int | None = None, total: int | None = None) -> None:
    """The `Notice` of those who do not want to know."""
