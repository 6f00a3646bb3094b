"""What is wrong with a file of problems, row by row, and what is in it."""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlif_jax.data.faults import RowFault, form, grouped
from rlif_jax.data.formats.detect import problem_from_any, read_row
from rlif_jax.data.formats.lines import parse_line, read_lines
from rlif_jax.data.overlap import overlaps
from rlif_jax.data.sets.builder import SPLITS
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem

FaultKind = Literal[
    "bad row", "repeated id", "repeated statement", "solution", "overlap", "warning"
]


@dataclass(frozen=True)
class Fault:
    """Something wrong with the row in a line of the file; `id` is its problem's, "" if unknown."""

    line: int
    id: str
    kind: FaultKind
    message: str


def equal(faults: Iterable[Fault]) -> list[list[Fault]]:
    """The faults in lists of equal ones: those of rows may differ in the values that they quote."""
    by_values = ("bad row", "warning")
    return grouped(
        faults, lambda f: (f.kind, form(f.message) if f.kind in by_values else f.message)
    )


@dataclass
class Contents:
    """The usable problems of a file, counted; `lines` are those that hold one.

    `tests` counts problems by their number of tests. `values` counts, for each of "kind",
    "platform", "difficulty" and "split", problems by value, "" where they have none.
    """

    rows: int = 0
    lines: set[int] = field(default_factory=set)
    solutions: int = 0
    tests: Counter[int] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    warnings: list[Fault] = field(default_factory=list)
    """What people should know of rows that can be used, of the kind "warning"; no faults."""

    def add(self, line: int, problem: Problem, split: str | None) -> None:
        """Count the problem of a line."""
        self.lines.add(line)
        self.solutions += "solution" in problem.metadata
        self.tests[len(problem.tests)] += 1
        described = {name: problem.metadata.get(name) for name in ("platform", "difficulty")}
        for name, value in {"kind": problem.tests[0].kind, **described, "split": split}.items():
            self.values.setdefault(name, Counter())[str(value or "")] += 1

    def summary(self) -> dict[str, Any]:
        """All of it for JSON; without problems `tests_per_problem` is None."""
        counts = sorted(self.tests.elements())
        tests = None
        if counts:
            tests = {"min": counts[0], "median": statistics.median(counts), "max": counts[-1]}
        return {
            "rows": self.rows,
            "problems": len(self.lines),
            "with_solution": self.solutions,
            "tests_per_problem": tests,
        } | {f"by_{name}": dict(sorted(counter.items())) for name, counter in self.values.items()}


@dataclass(frozen=True)
class Row:
    """A line of a file of problems: its place, its bytes and, when they are asked for, the row."""

    line: int
    where: str
    data: bytes

    def read(self) -> Any:
        """The JSON value; UserError when the line is not JSON."""
        return parse_line(self.data, self.where)


def rows_of(path: Path) -> Iterator[Row]:
    """The lines of a file that are not blank; UserError when it cannot be read."""
    for where, _, data in read_lines(path, "problems"):
        yield Row(int(where.rpartition(" ")[2]), where, data)  # the place ends in the line's number


def usable_problems(path: Path, lines: set[int]) -> Iterator[tuple[int, Problem]]:
    """The problems in these lines; only one at a time is in memory."""
    for row in rows_of(path):
        if row.line in lines:
            yield row.line, problem_from_any(row.read(), row.where)


def check_rows(
    path: Path, done: Callable[[int], Any] = lambda faults: None
) -> tuple[list[Fault], Contents]:
    """Every fault of the rows by themselves and among one another, and what is left without them.

    A bad row, one that repeats an id, and one whose split is not as in the rows before it, cannot
    be used; one that repeats a statement can. `done` is told after each row how many faults there
    are. Raises UserError when the file cannot be read.
    """
    faults: list[Fault] = []
    contents = Contents()
    places = _Places()
    for row in rows_of(path):
        contents.rows += 1
        value: Any = None
        try:
            value = row.read()
            problem, warning = read_row(value, row.where)
            split = places.checked_split(value.get("split"), row)
        except UserError as error:
            fault = RowFault.of(error, row.where, value)
            faults.append(Fault(row.line, fault.id, "bad row", fault.message))
        else:
            new = list(places.repetitions(problem, row.line))
            faults += new
            if not any(fault.kind == "repeated id" for fault in new):
                contents.add(row.line, problem, split)
                if warning:
                    contents.warnings.append(Fault(row.line, problem.id, "warning", warning))
        done(len(faults))
    return faults, contents


class _Places:
    """Where ids, statements and splits were seen first."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._statements: dict[bytes, tuple[int, str]] = {}
        self._split: tuple[int, str | None] | None = None

    def checked_split(self, split: Any, row: Row) -> str | None:
        """The split, if rows may have it: one of `SPLITS` in all, or none in any."""
        if split is not None and split not in SPLITS:
            raise UserError(
                f"{row.where}: field split is {shown(split)}; set it to "
                f"{' or '.join(map(repr, SPLITS))}, or leave it out of all rows."
            )
        first_line, first = self._split or (row.line, split)
        if (first is None) != (split is None):
            here, there = (shown(value) if value else "missing" for value in (split, first))
            raise UserError(
                f"{row.where}: field split is {here}, but {there} in line {first_line}; give all "
                "rows a split, or none of them."
            )
        self._split = first_line, first
        return split

    def repetitions(self, problem: Problem, line: int) -> Iterator[Fault]:
        """What the problem has in common with one before it."""
        if (first := self._ids.setdefault(problem.id, line)) != line:
            message = f"line {first} has the same id; give each problem an id of its own."
            yield Fault(line, problem.id, "repeated id", message)
            return
        # With punctuation, unlike in `overlap`: the two tasks may be about brackets and braces.
        statement = " ".join(f"{problem.prompt} {problem.starter_code}".lower().split())
        digest = hashlib.sha256(statement.encode()).digest()
        first, name = self._statements.setdefault(digest, (line, problem.id))
        if first != line:
            message = f"the statement is that of {name!r} in line {first}; keep one of them."
            yield Fault(line, problem.id, "repeated statement", message)


def check_overlap(
    path: Path,
    lines: set[int],
    held_out: Iterable[Problem],
    name: str,
    done: Callable[[], Any] = lambda: None,
) -> Iterator[Fault]:
    """A fault for each problem in these lines that overlaps with ones held out in the set `name`.

    `done` is told of each problem.
    """
    line_of: dict[str, int] = {}

    def problems() -> Iterable[Problem]:
        for line, problem in usable_problems(path, lines):
            line_of[problem.id] = line
            yield problem
            done()

    how = {
        "id": "the same id",
        "text": "the same statement",
        "13-gram": "13 words of the statement in common",
    }
    for overlap in overlaps(problems(), held_out):
        words = f", {json.dumps(overlap.shared)}" if overlap.shared else ""
        yield Fault(
            line_of[overlap.train_id],
            overlap.train_id,
            "overlap",
            f"{how[overlap.how]} as {overlap.held_out_id!r} of {name}{words}; do not train on it "
            "if that is evaluated on.",
        )
