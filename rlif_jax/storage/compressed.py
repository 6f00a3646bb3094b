"""Files of lines that may be compressed, recognised by their first bytes, not by their names."""

import bz2
import contextlib
import gzip
import lzma
import shlex
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from rlif_jax.errors import UserError

_START = 512  # bytes by which every form is recognised
_COMPRESSED: tuple[tuple[bytes, str, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", "gzip", gzip.open),
    (b"BZh", "bzip2", bz2.open),
    (b"\xfd7zXZ\0", "xz", lzma.open),
)
"""First bytes, the command that decompresses with -dc, and what reads it."""
_OTHERS = (
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "decompress it: zstd -d {file}"),
    (0, b"PAR1", "a Parquet file", "write a JSON object for each of its rows, by pandas for one"),
    (0, b"ARROW1", "an Arrow file", "write a JSON object for each of its rows"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it: unzip {file}"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it: 7z x {file}"),
    (257, b"ustar", "a tar archive", "unpack it: tar xf {file}"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
)
"""Forms that are not read: the place of the bytes that identify one, its name, and the remedy."""


@contextlib.contextmanager
def open_lines(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of lines for reading, decompressed where it is compressed by gzip, bzip2 or xz.

    The file can seek; seeking back reads a compressed file again from its beginning.

    Raises UserError for a form that does not hold lines and for damaged compressed data, OSError
    when the file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        file = lines = stack.enter_context(open(path, "rb"))
        try:
            start = file.peek(_START)
            _refuse_others(path, start)
            for magic, _, opened in _COMPRESSED:
                if start.startswith(magic):
                    lines = cast(Any, stack.enter_context(opened(file)))
                    _refuse_others(path, lines.peek(_START))
            yield lines
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise _damaged(path, error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise _damaged(path, error) from error  # gzip and bz2 raise it for damaged data


def decompressor(path: Path) -> str:
    """The shell command that decompresses a file, "" where it is not compressed."""
    try:
        with open(path, "rb") as file:
            start = file.peek(_START)
    except OSError:
        return ""
    names = [name for magic, name, _ in _COMPRESSED if start.startswith(magic)]
    return f"{names[0]} -dc {shlex.quote(str(path))}" if names else ""


def _refuse_others(path: Path, start: bytes) -> None:
    for place, magic, what, remedy in _OTHERS:
        if start[place:].startswith(magic):
            how = remedy.format(file=shlex.quote(str(path)))
            raise UserError(f"{path} is {what}, not a file of one JSON object in each line; {how}.")


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is compressed, and its data is damaged or its end missing ({error}); get the file "
        "again."
    )
