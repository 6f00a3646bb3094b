"""Problem sets by name, built once (`rlif_jax.data.sets.stored`) and read by index."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlif_jax.console.notice import Notice, ignore
from rlif_jax.data.dates import Window, in_window
from rlif_jax.data.faults import RowFault, lines_of
from rlif_jax.data.formats.detect import read_row
from rlif_jax.data.formats.evalplus import check_release_row, is_evalplus, release_path
from rlif_jax.data.sets.builder import SPLITS
from rlif_jax.data.sets.content import Content, Parsed, jsonl_content, listed_content
from rlif_jax.data.sets.humaneval import humaneval_problems
from rlif_jax.data.sets.livecodebench import is_livecodebench, parse_name, read_release_row
from rlif_jax.data.sets.release_files import release_files
from rlif_jax.data.sets.stored import BuiltSet, Entry, built_set
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

DATASETS: Mapping[str, Path] = {"starter": Path(__file__).parent / "starter" / "problems.jsonl"}


class ProblemSource:
    """Random access to the problems of a set, in the order of its files.

    `name` names it in messages; `skipped` holds a line for each kind of fault of skipped rows.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[BuiltSet],
        picks: Sequence[tuple[int, int]],
        skipped: Sequence[str] = (),
    ):
        self.name = name
        self.skipped = tuple(skipped)
        self._parts = tuple(parts)
        self._picks = tuple(picks)  # part and record of each problem

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, index: int) -> Problem:
        part, record = self._picks[index]
        return self._parts[part].problem(record, f"{self.name} problem {index}")

    def statement(self, index: int) -> Problem:
        """A problem without its tests, which may be many megabytes and are not read."""
        part, record = self._picks[index]
        return self._parts[part].statement(record, f"{self.name} problem {index}")

    def entry(self, index: int) -> Entry:
        """What is known of a problem without reading it."""
        part, record = self._picks[index]
        return self._parts[part].entries[record]


def problem_source(
    name: str,
    role: str = "train",
    *,
    skip_bad: bool = False,
    notice: Notice = ignore,
) -> ProblemSource:
    """Open a problem set for training or validation, built first if it is not.

    Names are `starter`, `humaneval`, `humanevalplus@FILE`, `mbppplus@FILE`, `livecodebench` with
    what `livecodebench.parse_name` knows, and `jsonl:PATH`, or a path that ends in .jsonl or
    .jsonl.gz. Files may be compressed. A set whose rows name a split gives only the problems of
    `role`; any other set gives all in either role.

    `notice` is called before a large file is built, for warnings about its rows, and, with
    `skip_bad`, for the invalid rows that are skipped, those with equal faults in one line. Without
    `skip_bad` a set with invalid rows is refused.

    Raises UserError for an unknown name or role, a file that is missing or cannot be read, a bad
    row, a repeated id, a set or role without problems, and a cache that cannot be written.
    """
    if role not in SPLITS:
        raise UserError(f"A problem set is opened for {' or '.join(SPLITS)}, not for {role!r}.")
    contents, window = _contents(name)
    parts = [built_set(content, skip_bad, notice) for content in contents]
    faults = [fault for part in parts for fault in part.skipped]
    picks = list(_distinct(parts, None if not skip_bad else faults))
    skipped = lines_of(faults)
    for part in parts:
        for line in lines_of(part.warnings):
            notice(f"warning: {line}")
    if skipped:
        notice(f"{len(faults)} rows of {name} are invalid and skipped:")
    for line in skipped:
        notice(line)
    return ProblemSource(
        f"{name}/{role}", parts, _picked(parts, picks, name, role, window), skipped
    )


def _contents(name: str) -> tuple[list[Content], Window | None]:
    """What a set is built from, and the window of contest days that its name asks for."""
    if name in DATASETS:
        return [jsonl_content(DATASETS[name], _read_row)], None
    if name == "humaneval":
        return [listed_content(name, list(humaneval_problems()))], None
    if is_evalplus(name):
        content = jsonl_content(release_path(name), functools.partial(_read_plus_row, name))
        # Apart from what jsonl:FILE builds, which is not checked in the same way.
        return [replace(content, stem=f"{name.partition('@')[0]}-{content.stem}")], None
    if name.startswith("jsonl:") or name.endswith((".jsonl", ".jsonl.gz")):
        path = Path(name.removeprefix("jsonl:")).expanduser()
        return [jsonl_content(path, _read_row)], None
    if is_livecodebench(name):
        asked = parse_name(name)
        paths = release_files(asked.location, asked.files, asked.remedy)
        return [jsonl_content(path, read_release_row) for path in paths], asked.window
    raise UserError(
        f"Unknown problem set {name!r}. Known: {', '.join(DATASETS)}, humaneval, "
        "humanevalplus@FILE, mbppplus@FILE, livecodebench and livecodebench_v5; or give "
        "jsonl:PATH, or the path of a .jsonl or .jsonl.gz file."
    )


def _read_row(row: Any, where: str) -> Parsed:
    problem, warning = read_row(row, where)
    return problem, row.get("split"), warning


def _read_plus_row(name: str, row: Any, where: str) -> Parsed:
    problem, split, warning = _read_row(row, where)
    place = f"{where} (id {problem.id!r})"
    check_release_row(row, bool(problem.starter_code), name, place)
    return problem, split, warning


def _distinct(
    parts: Sequence[BuiltSet], skipped: list[RowFault] | None
) -> Iterator[tuple[int, int]]:
    """Part and record of each problem; one whose id an earlier part has is refused or skipped."""
    places: dict[str, str] = {}
    for number, part in enumerate(parts):
        for record, entry in enumerate(part.entries):
            if entry.id not in places:
                places[entry.id] = entry.place
                yield number, record
                continue
            message = (
                f"the id {entry.id!r} was already used at {places[entry.id]}; give each problem an "
                "id of its own."
            )
            if skipped is None:
                raise UserError(f"{entry.place}: {message}")
            skipped.append(RowFault(entry.place, "", message))


def _picked(
    parts: Sequence[BuiltSet],
    picks: Sequence[tuple[int, int]],
    name: str,
    role: str,
    window: Window | None,
) -> list[tuple[int, int]]:
    """The picks of the role and the window."""
    entries = [parts[part].entries[record] for part, record in picks]
    splits = {entry.split for entry in entries} - {""}
    if splits and role not in splits:
        raise UserError(f"The problem set {name!r} has no split {role!r}, only {min(splits)}.")
    if window is None:
        dated = [True] * len(entries)
    else:
        dated = [in_window(entry.contest_date, window) for entry in entries]
        if not any(dated):
            days = sorted(entry.contest_date for entry in entries)
            raise UserError(
                f"The problem set {name!r} is empty: its {len(days)} problems are of contests from "
                f"{days[0]} to {days[-1]}. Choose other days."
            )
    return [
        pick
        for pick, entry, is_dated in zip(picks, entries, dated, strict=True)
        if is_dated and entry.split in ("", role)
    ]
