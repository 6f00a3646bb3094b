"""Every fault in a file of problems: what `python -m rlif_jax.check` finds and prints."""

import dataclasses
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlif_jax.config import Execution, own_limits
from rlif_jax.config.validate import validate_arguments
from rlif_jax.console.interrupt import Interrupted, StopRequest
from rlif_jax.console.meter import Meter
from rlif_jax.data.faults import others
from rlif_jax.data.findings import (
    TOLERANCE,
    Contents,
    Fault,
    check_overlap,
    check_rows,
    equal,
    failure,
    rows_of,
    usable_problems,
)
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.execution.pool import Judge, SandboxError
from rlif_jax.problem import Outcome, Problem, Verdict

UNFINISHED_PER_WORKER = 4
"""Solutions handed to the judge and not yet judged; only these keep their problems in memory."""
STOP_CHECK_S = 0.2


@dataclass(frozen=True)
class Arguments:
    """Find every fault in a file of problems: rows that cannot be read, ids and statements that
    come twice, tests that a problem's own solution fails, and problems that are, or are like, those
    of a set to evaluate on.

    Exit status: 0 no fault, 1 faults, 2 the file could not be checked.
    """

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """JSONL file of problems: your own (rlif_jax.data.formats.own) or those of a published set."""
    against: tuple[str, ...] = ()
    """Problem sets to look for overlap with: livecodebench_v5, humaneval, FILE.jsonl and so on."""
    run_solutions: bool = True
    """Run the solutions that rows have against all of their tests."""
    json_out: Annotated[str, tyro.conf.arg(name="json")] = ""
    """Write faults and summary to this file, too."""
    execution: Execution = field(default_factory=own_limits)


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


def check(args: Arguments, console: Console | None = None) -> Report:
    """Check the file and return what was found, in the order of its lines.

    Progress is shown on `console`, else on standard output.

    Raises:
        UserError: the file, a set of `against` or the --json file cannot be read or written, or
            programs cannot be run here.
        SandboxError: the judge's own failure.
        Interrupted: Ctrl-C or SIGTERM.
    """
    validate_arguments(args)
    path = Path(args.file)
    if not path.is_file():
        raise UserError(f"{path} is not a file of problems; name a JSONL file, one row in a line.")
    if args.json_out and not Path(args.json_out).absolute().parent.is_dir():
        raise UserError(f"--json {args.json_out}: there is no such folder; create it first.")
    rows = sum(1 for _ in rows_of(path))
    if not rows:
        raise UserError(f"{path} holds no problems; add one row per line.")
    console = console or standard_console()

    def note(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    with StopRequest(note) as stop:
        against = {n: problem_source(n, "validation", notice=note) for n in args.against}
        with Meter("reading", "rows", 0, rows, console) as meter:
            faults, contents = check_rows(path, _counting(meter, stop, "{} faults"))
        report = Report(args.file, faults, contents, against=tuple(against))
        if args.run_solutions and contents.solutions:
            failed, close = _failed_solutions(args.execution, path, contents, console, stop)
            faults += [solution.fault(solution.line in close) for solution in failed]
            report.passed, report.close = contents.solutions - len(failed), len(close)
        for name, source in against.items():
            held_out = (source.statement(index) for index in range(len(source)))
            with Meter(f"comparing with {name}", "problems", 0, len(contents.lines), console) as m:
                read = _counting(m, stop, "compared")
                faults += check_overlap(path, contents.lines, held_out, name, read)
    faults.sort(key=lambda fault: fault.line)
    if args.json_out:
        _write_json(Path(args.json_out), report)
    return report


def _counting(meter: Meter, stop: StopRequest, state: str) -> Callable[..., None]:
    """What is called for each row: it counts, and ends the check when that was asked for."""

    def count(*values: int) -> None:
        stop.check()
        meter.count(state.format(*values))

    return count


def _write_json(path: Path, report: Report) -> None:
    try:
        path.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"--json {path} cannot be written: {error.strerror}. Check the path and its "
            "permissions."
        ) from error


def _failed_solutions(
    execution: Execution, path: Path, contents: Contents, console: Console, stop: StopRequest
) -> tuple[list["FailedSolution"], set[int]]:
    """The solutions that fail, and the lines of those that pass with a numeric tolerance."""
    with (
        Judge(execution, run_all_tests=True) as judge,
        Meter("running solutions", "programs", 0, contents.solutions, console) as meter,
    ):
        problems = usable_problems(path, contents.lines)
        count = _counting(meter, stop, "{} failed")
        failed = judge_solutions(judge, execution.workers, problems, count, stop.check)
    wrong = {solution.line for solution in failed if solution.only_wrong_answers}
    if not wrong or execution.numeric_tolerance > 0:
        return failed, set()
    tolerant = dataclasses.replace(execution, numeric_tolerance=TOLERANCE)
    with (
        Judge(tolerant, run_all_tests=False) as judge,
        Meter("comparing numbers", "programs", 0, len(wrong), console) as meter,
    ):
        problems = usable_problems(path, wrong)
        count = _counting(meter, stop, "{} differ")
        differ = judge_solutions(judge, execution.workers, problems, count, stop.check)
    return failed, wrong - {solution.line for solution in differ}


@dataclass(frozen=True)
class FailedSolution:
    """The solution of the problem in a line and what became of it; the problem is without tests."""

    line: int
    problem: Problem
    outcome: Outcome | UserError

    @property
    def only_wrong_answers(self) -> bool:
        """Whether it ended normally in all tests that it fails."""
        ends = {Verdict.PASSED, Verdict.WRONG_ANSWER}
        return isinstance(self.outcome, Outcome) and ends >= set(self.outcome.results)

    def fault(self, close: bool) -> Fault:
        """What to say of it; `close` as in `failure`."""
        if isinstance(self.outcome, UserError):
            message = str(self.outcome)
        else:
            message = failure(self.outcome, self.problem, close)
        return Fault(self.line, self.problem.id, "solution", message)


def judge_solutions(
    judge: Judge,
    workers: int,
    problems: Iterable[tuple[int, Problem]],
    done: Callable[[int], Any] = lambda failed: None,
    check_stop: Callable[[], Any] = lambda: None,
) -> list[FailedSolution]:
    """The solutions that fail, of problems and their lines; problems without one are skipped.

    `done` is told after each how many have failed; `check_stop` is called now and then and may
    raise. Raises SandboxError when the judge fails.
    """
    failed: list[FailedSolution] = []
    waiting: deque[tuple[int, Problem, Future[Outcome]]] = deque()

    def keep(line: int, problem: Problem, outcome: Outcome | UserError) -> None:
        failed.append(FailedSolution(line, dataclasses.replace(problem, tests=()), outcome))

    def finish_to(length: int) -> None:
        while len(waiting) > length:
            line, problem, future = waiting[0]
            check_stop()
            if not wait([future], STOP_CHECK_S).done:
                continue
            waiting.popleft()
            if not (outcome := future.result()).passed:
                keep(line, problem, outcome)
            done(len(failed))

    for line, problem in problems:
        if "solution" not in problem.metadata:
            continue
        finish_to(UNFINISHED_PER_WORKER * workers - 1)
        try:
            future = judge.submit(problem, problem.metadata["solution"])
        except UserError as error:  # of tests that only the judge finds fault with
            keep(line, problem, error)
            done(len(failed))
        else:
            waiting.append((line, problem, future))
    finish_to(0)
    return failed


def standard_console() -> Console:
    """Standard output; live drawing and tables only where a person watches."""
    watched = sys.stdout.isatty() and not os.environ.get("CI")
    return Console(force_interactive=None if watched else False, highlight=False)


def show(report: Report, console: Console) -> None:
    """Print faults, in a table on a terminal and one in a line elsewhere, and the summary.

    Equal faults of many rows are one line with their number and examples.
    """
    groups = equal(report.faults)
    if groups and console.is_interactive:
        table = Table("line", "fault", box=box.SIMPLE, show_edge=False)
        table.add_column("problem", overflow="fold")
        for first, *rest in groups:
            name = printable(f"{first.id}{_others(rest)}: ".lstrip(": "))
            what = Text.assemble((name, "bold"), printable(first.message))
            table.add_row(str(first.line), Text(first.kind, no_wrap=True), what)
        console.print(table)
    else:
        for group in groups:
            _line(console, _in_a_line(report.file, group))
    for group in equal(report.contents.warnings):
        _line(console, _in_a_line(report.file, group))
    for line in summary_lines(report):
        _line(console, line)


def _in_a_line(file: str, faults: Sequence[Fault]) -> str:
    first, *rest = faults
    name = f" (id {first.id!r})" if first.id else ""
    return f"{file} line {first.line}{name}{_others(rest)}: {first.kind}: {first.message}"


def _others(rest: Sequence[Fault]) -> str:
    return others([(f"line {fault.line}", fault.id) for fault in rest])


def _line(console: Console, text: str) -> None:
    # soft_wrap: in a pipe a line stays one line, at any length.
    console.print(printable(text), soft_wrap=True, markup=False, highlight=False)


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


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0 without faults, 1 with, 2 when it could not be checked."""
    args = tyro.cli(Arguments, args=argv, prog="python -m rlif_jax.check")
    console = standard_console()
    with exit_on_user_error():
        try:
            report = check(args, console)
            show(report, console)
        except SandboxError as error:
            print(f"error: the judge failed, not a solution: {error}.", file=sys.stderr)
            sys.exit(2)
        except (Interrupted, KeyboardInterrupt):
            print("stopped; nothing was written")
            sys.exit(130)
    sys.exit(1 if report.faults else 0)
