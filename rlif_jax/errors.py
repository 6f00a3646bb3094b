"""The one exception that people see as a sentence instead of a traceback."""

import contextlib
import reprlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 240


class UserError(Exception):
    """Bad input. The message is one paragraph that names the value and the remedy."""


class Outage(UserError):
    """A service that does not answer: the same command may succeed later."""


class Complete(UserError):
    """Nothing is left to do: what was asked for is there."""


class NotFinite(UserError):
    """Numbers of a step that are not finite; `arrays` are what they were made from, by name."""

    arrays: Mapping[str, Any] = {}


def shown(value: Any) -> str:
    """A value of a file as a message shows it: in one line, and short however large it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = 80
    text = short.repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a `UserError` on standard error and exit with status 2; let everything else through.

    The status is 1 for an `Outage`, after which a launcher may start the command again, and 0 for
    what is `Complete`, so that a launcher that has started it again is done.
    """
    try:
        yield
    except Complete as done:
        print(done, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, Outage) else 2) from None
