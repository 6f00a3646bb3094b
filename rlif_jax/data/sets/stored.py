"""Stored problem sets: built once in the user's cache, then read by index."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rlif_jax.console.notice import Notice, ignore
from rlif_jax.data.faults import RowFault, refusal
from rlif_jax.data.formats.livecodebench import problem_from_row, statement_from_row
from rlif_jax.data.sets.builder import RECORDS, STATEMENTS, CodeProblems, build
from rlif_jax.data.sets.content import Content
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem
from rlif_jax.storage.user_cache import cache_folder

LARGE_BYTES = 100e6
"""Content of this size takes long enough to build to be announced."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a problem without reading its record; an absent text is "".

    `tests` is their number, `digest` differs between problems that differ, `split` is the part of
    the set that the row names, `place` where it is in the content.
    """

    id: str
    question_title: str
    platform: str
    difficulty: str
    contest_date: str
    tests: int
    digest: str
    split: str
    place: str


@dataclasses.dataclass(frozen=True)
class BuiltSet:
    """Problems by index, in the order of the content; the faults of skipped rows; and warnings."""

    records: Sequence[Mapping[str, bytes]]
    statements: Sequence[Mapping[str, bytes]]
    entries: tuple[Entry, ...]
    skipped: tuple[RowFault, ...]
    warnings: tuple[RowFault, ...]

    def problem(self, index: int, where: str) -> Problem:
        """The problem of one record; `where` names it should the record be damaged."""
        return problem_from_row(_texts(self.records[index]), where)

    def statement(self, index: int, where: str) -> Problem:
        """The problem without its tests, which are not read."""
        return statement_from_row(_texts(self.statements[index]), where)


def _texts(record: Mapping[str, bytes]) -> dict[str, str]:
    return {field: value.decode() for field, value in record.items()}


def built_set(content: Content, skip_bad: bool = False, notice: Notice = ignore) -> BuiltSet:
    """The set of this content, built if it is missing; several processes may build it at once.

    Every row is checked before the set appears, in a folder of `cache_folder()` named after the
    content's digest. With `skip_bad`, invalid rows are skipped and their faults kept beside the
    records.

    Raises UserError for invalid rows without `skip_bad`, even where the set was built by skipping
    them, for a set without problems, and for a cache that cannot be written.
    """
    folder = cache_folder() / "datasets" / f"{content.stem}-{content.digest[:16]}"
    try:
        builder = CodeProblems(data_dir=folder)
        if not builder.data_path.exists():
            if content.size > LARGE_BYTES:
                notice(f"preparing {content.name} ({content.size / 1e6:.0f} MB), once, in {folder}")
            build(content, folder, skip_bad)
            builder = CodeProblems(data_dir=folder)
    except (OSError, RuntimeError) as error:  # ArrayRecord reports a full disk as RuntimeError
        raise UserError(
            f"Cannot keep the problems of {content.name} in {folder}: {error}. Free some space, or "
            "point the environment variable RLIF_CACHE to a folder that can be written."
        ) from error
    opened: Any = builder  # TFDS's own types are unions of all that its datasets may be
    kept = opened.info.metadata
    skipped, warnings = (
        tuple(RowFault(*map(content.with_name, fault)) for fault in kept[name])
        for name in ("skipped", "warnings")
    )
    if skipped and not skip_bad:
        raise refusal(skipped, content.name)
    stored = (Entry(*values) for values in kept["entries"])
    entries = tuple(dataclasses.replace(e, place=content.with_name(e.place)) for e in stored)
    records, statements = map(opened.as_data_source, (RECORDS, STATEMENTS))
    return BuiltSet(records, statements, entries, skipped, warnings)
