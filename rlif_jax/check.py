"""Every fault in a file of problems.

python -m rlif_jax.check FILE [--against humaneval] [--json FAULTS.json]
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from rlif_jax.config import Execution, own_limits
from rlif_jax.config.validate import validate_arguments
from rlif_jax.console.interrupt import Interrupted, StopRequest
from rlif_jax.console.meter import Meter
from rlif_jax.console.screen import Screen
from rlif_jax.data.findings import check_overlap, check_rows, rows_of
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.execution.pool import SandboxError
from rlif_jax.grading.problem_report import Report, show
from rlif_jax.grading.solutions import check_solutions


@dataclass(frozen=True)
class Arguments:
    """Find every fault in a file of problems: rows that cannot be read, repeated ids and
    statements, tests that a problem's own solution fails, and overlap with evaluation sets.

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


def check(args: Arguments, screen: Screen) -> Report:
    """Check the file and return what was found, in the order of its lines.

    Progress is shown on the screen.

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
    with StopRequest(screen.note) as stop:
        against = {n: problem_source(n, "validation", notice=screen.note) for n in args.against}
        with Meter(screen, "reading", "rows", 0, rows) as meter:
            faults, contents = check_rows(path, _counting(meter, stop, "{} faults"))
        report = Report(args.file, faults, contents, against=tuple(against))
        if args.run_solutions and contents.solutions:
            wrong, report.close = check_solutions(
                args.execution, path, contents, screen, stop.check
            )
            faults += wrong
            report.passed = contents.solutions - len(wrong)
        for name, source in against.items():
            held_out = (source.statement(index) for index in range(len(source)))
            title, problems = f"comparing with {name}", len(contents.lines)
            with Meter(screen, title, "problems", 0, problems) as meter:
                read = _counting(meter, stop, "compared")
                faults += check_overlap(path, contents.lines, held_out, name, read)
    faults.sort(key=lambda fault: fault.line)
    if args.json_out:
        _write_json(Path(args.json_out), report)
    return report


def _counting(meter: Meter, stop: StopRequest, state: str) -> Callable[..., None]:
    """A callback for each row: it counts, and ends the check when a stop was asked for."""

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


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0 without faults, 1 with, 2 when it could not be checked."""
    args = tyro.cli(Arguments, args=argv, prog="python -m rlif_jax.check")
    screen = Screen()
    with exit_on_user_error():
        try:
            report = check(args, screen)
            show(report, screen)
        except SandboxError as error:
            print(f"error: the judge failed, not a solution: {error}.", file=sys.stderr)
            sys.exit(2)
        except (Interrupted, KeyboardInterrupt):
            print("stopped; nothing was written")
            sys.exit(130)
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
