"""JSONL files that one process appends to: whatever stops it, every line but the last is whole."""

import contextlib
import fcntl
import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from rlif_jax.storage.whole_file import write_whole


def json_line(row: Mapping[str, Any], ascii_only: bool = True) -> bytes:
    """A row as a line of JSON; ValueError for a number that is not finite.

    A lone surrogate, which a completion may hold, cannot be UTF-8; it is written as its escape.
    """
    text = json.dumps(row, ensure_ascii=ascii_only, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def append_whole(fd: int, data: bytes, sync: bool = False) -> None:
    """Append all of the data to a file that is open for appending, or nothing. Raises OSError.

    With `sync` it is on the disk when this returns; some file systems report a full one only then.
    """
    size = os.fstat(fd).st_size
    try:
        while data:
            data = data[os.write(fd, data) :]
        if sync:
            os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise


def whole_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file but for a last one that was cut short."""
    return (line for line in lines if line.endswith(b"\n"))


class JsonlFile:
    """A JSONL file to append to, new or not; a context manager.

    With `lock` no second process can lock it. A row is with the operating system when `append`
    returns.

    Raises OSError as `open` does, and BlockingIOError where another process has locked the file.
    """

    def __init__(self, path: Path, *, lock: bool = False):
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if lock:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and give up its lock."""
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._fd).st_size

    def lines(self) -> Generator[bytes, None, None]:
        """The lines in the file; one that was cut short lacks its line end."""
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            yield from file

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row, which stays whatever happens to this process next, or nothing.

        Raises OSError, and ValueError for a number that is not finite.
        """
        append_whole(self._fd, json_line(row))

    def truncate(self, size: int) -> None:
        """Keep the first `size` bytes."""
        os.ftruncate(self._fd, size)

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put these rows in the place of all, as the last act: there are the old or the new rows.

        Raises OSError; the old ones stay then.
        """
        write_whole(self._path, b"".join(map(json_line, rows)))
