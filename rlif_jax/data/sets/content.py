"""What a problem set is built from: a JSONL file, or problems in memory."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlif_jax.data.formats.lines import parse_line, read_lines
from rlif_jax.data.formats.livecodebench import ROW_FIELDS, row_from_problem
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem
from rlif_jax.storage.digests import file_digest, signature

Parsed = tuple[Problem, Any, str]
"""A problem, the split that its row names or None, and a warning or ""."""
Read = Callable[[], Parsed]

_CONTENT = "\0"  # stands for the content's name in what is stored


@dataclasses.dataclass(frozen=True)
class Content:
    """What a set is built from; `digest` changes with it, `name` names it in messages.

    `size` is in bytes. `rows()` yields the place of each row and a function that reads it: the
    problem, the split that it names or None, and a warning or "". Reading
    a bad row raises UserError.
    """

    name: str
    stem: str
    digest: str
    size: int
    rows: Callable[[], Iterator[tuple[str, Read]]]

    def without_name(self, text: str) -> str:
        """A place or message as it is stored: the content may be called otherwise later."""
        return text.replace(f"{self.name} line ", f"{_CONTENT} line ")

    def with_name(self, text: str) -> str:
        """Undo `without_name`."""
        return text.replace(f"{_CONTENT} line ", f"{self.name} line ")


def jsonl_content(path: Path, read: Callable[[Any, str], Parsed]) -> Content:
    """A JSONL file; `read(row, place)` gives the problem of a row, its split and its warning.

    Raises UserError for a file that cannot be read, and from `rows` when the file is written to
    meanwhile.
    """
    before = signature(path)
    digest = file_digest(path)

    def rows() -> Iterator[tuple[str, Read]]:
        for where, _, line in read_lines(path, "problems"):
            yield where, functools.partial(_read_line, line, where, read)
        if signature(path) != before:
            raise UserError(f"{path} was written to while it was read; run again when it is whole.")

    return Content(str(path), path.stem, digest, path.stat().st_size, rows)


def _read_line(line: bytes, where: str, read: Callable[[Any, str], Parsed]) -> Parsed:
    return read(parse_line(line, where), where)


def listed_content(name: str, problems: Sequence[tuple[str, Problem]]) -> Content:
    """Problems in memory, each with its place; none names a split."""
    digest = hashlib.sha256()
    for _, problem in problems:
        digest.update(row_digest(row_from_problem(problem)).encode())

    def rows() -> Iterator[tuple[str, Read]]:
        for where, problem in problems:
            yield where, lambda problem=problem: (problem, None, "")

    return Content(name, name, digest.hexdigest(), 0, rows)


def row_digest(row: Mapping[str, str]) -> str:
    """A text that differs between rows that differ."""
    digest = hashlib.sha256()
    for name in ROW_FIELDS:
        text = row[name].encode()
        digest.update(b"%d " % len(text))
        digest.update(text)
    return digest.hexdigest()[:16]
