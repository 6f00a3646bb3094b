"""What the check of a file of problems found, as JSON and for people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from rlif_jax.console.screen import Screen
from rlif_jax.data.faults import others
from rlif_jax.data.findings import Contents, Fault, equal
from rlif_jax.grading.solutions import TOLERANCE


@dataclass
class Report:
    """All that was found in a file; `passed` of its solutions pass, None when they were not run.

    `close` more pass where numbers may differ by `TOLERANCE`.
    """

    file: str
    faults: list[Fault]
    contents: Contents
    passed: int | None = None
    against: tuple[str, ...] = ()
    close: int = 0

    def as_json(self) -> dict[str, Any]:
        """The report as it is written with --json."""
        summary = self.contents.summary() | {
            "solutions_passed": self.passed,
            "solutions_close": self.close,
        }
        return {
            "file": self.file,
            "against": list(self.against),
            "faults": [asdict(fault) for fault in self.faults],
            "warnings": [asdict(warning) for warning in self.contents.warnings],
            "summary": summary,
        }


def show(report: Report, screen: Screen) -> None:
    """Print faults, in a table on a terminal and one in a line elsewhere, and the summary.

    Equal faults of many rows are one line with their number and examples.
    """
    groups = equal(report.faults)
    if groups and screen.watched:
        table = Table("line", "fault", box=box.SIMPLE, show_edge=False)
        table.add_column("problem", overflow="fold")
        for first, *rest in groups:
            name = printable(f"{first.id}{_others(rest)}: ".lstrip(": "))
            what = Text.assemble((name, "bold"), printable(first.message))
            table.add_row(str(first.line), Text(first.kind, no_wrap=True), what)
        screen.console.print(table)
    else:
        for group in groups:
            screen.note(printable(_in_a_line(report.file, group)))
    for group in equal(report.contents.warnings):
        screen.note(printable(_in_a_line(report.file, group)))
    for line in summary_lines(report):
        screen.note(printable(line))


def _in_a_line(file: str, faults: Sequence[Fault]) -> str:
    first, *rest = faults
    name = f" (id {first.id!r})" if first.id else ""
    return f"{file} line {first.line}{name}{_others(rest)}: {first.kind}: {first.message}"


def _others(rest: Sequence[Fault]) -> str:
    return others([(f"line {fault.line}", fault.id) for fault in rest])


def printable(text: str) -> str:
    """The text without what a terminal would obey or an encoding refuse."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def summary_lines(report: Report) -> list[str]:
    """What the file holds, in lines for people."""
    contents = report.contents
    lines = [f"{len(contents.lines)} problems in {contents.rows} rows of {report.file}"]
    for name, counter in contents.values.items():
        if set(counter) != {""}:
            values = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
            lines.append(f"{name}: " + ", ".join(f"{v or 'none'} {n}" for v, n in values))
    if tests := contents.summary()["tests_per_problem"]:
        lines.append(
            f"tests per problem: {tests['min']} to {tests['max']}, median {tests['median']:g}"
        )
    passed = "which were not run" if report.passed is None else f"of which {report.passed} pass"
    if report.close:
        passed += f", and {report.close} more with --execution.numeric-tolerance={TOLERANCE:g}"
    lines.append(f"solutions: {contents.solutions}{f', {passed}' if contents.solutions else ''}")
    kinds = Counter(fault.kind for fault in report.faults)
    lines += [f"compared with {name}" for name in report.against]
    found = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    lines.append(f"faults: {found or 'none'}")
    return lines
