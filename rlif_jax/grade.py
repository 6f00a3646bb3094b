"""Grade programs against the tests of their problems.

python -m rlif_jax.grade --problems FILE.jsonl --completions FILE.jsonl --out FILE.jsonl
"""

import contextlib
import functools
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from rlif_jax.config import Execution, own_limits
from rlif_jax.config.validate import validate_arguments
from rlif_jax.console.interrupt import Interrupted, StopRequest
from rlif_jax.console.meter import Meter
from rlif_jax.console.screen import Screen
from rlif_jax.data.formats.fields import LONGEST_TIME_LIMIT_S
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.execution.pool import Judge, SandboxError, described
from rlif_jax.grading.graded_file import GradedFile, graded_row, judging_digest, skipped_row
from rlif_jax.grading.inputs import Completion, ProblemFile, read_completions
from rlif_jax.grading.judging import judged_in_order
from rlif_jax.grading.tally import Tally
from rlif_jax.problem import Problem


@dataclass(frozen=True)
class Arguments:
    """Run programs against the tests of their problems, and write one row of results for each.

    Run the same command to resume from an --out file that an earlier run began. A test may use the
    seconds of CPU time that its problem's row names, else 6; --execution.time-limit-s S bounds
    every row's limit, and is the limit of rows that name none.
    """

    problems: str
    """JSONL file of problems in any form that data/formats reads, or of {id, input_output}."""
    completions: str
    """JSONL file of {id, code} or {id, completion}, null for no program; ids may repeat."""
    out: str
    """JSONL file for the results, in the order of the completions."""
    run_all_tests: bool = False
    """Run a program's other tests after one has failed, too."""
    keep_errata: bool = False
    """Grade also problems in LiveCodeBench's errata, whose tests reject correct programs."""
    execution: Execution = field(default_factory=own_limits)


def grade(args: Arguments) -> str:
    """Grade what --out does not hold yet and return the summary of all of it.

    Raises:
        UserError: bad input, found before any program is run.
        SandboxError: the judge's own failure; the rows before it are written.
        Interrupted: Ctrl-C or SIGTERM; the rows that were finished in order are written.
    """
    execution, out = args.execution, Path(args.out)
    validate_arguments(args)
    for name in (args.problems, args.completions):
        if out.exists() and Path(name).exists() and out.samefile(name):
            raise UserError(f"--out {out} is also an input; name another file for the results.")
    own_limit_s = min(execution.time_limit_s, LONGEST_TIME_LIMIT_S)
    if execution.time_limit_s == math.inf:
        own_limit_s = Problem.time_limit_s
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(GradedFile(out))
        problems = ProblemFile(Path(args.problems), own_limit_s)
        skipped = {} if args.keep_errata else problems.errata
        tally = Tally(len(problems) - len(skipped))

        def completions() -> Iterator[Completion]:
            return read_completions(Path(args.completions), problems, problems.started)

        @functools.cache
        def judged_by(name: str) -> str:
            return judging_digest(problems.digests[name], execution, args.run_all_tests)

        done, total = file.resume(completions(), skipped, tally.add, judged_by)
        if total == 0:
            raise UserError(f"{args.completions} holds no completions; add one row per line.")
        if done == total:
            return tally.summary()
        before, screen = tally.graded, Screen()
        meter = stack.enter_context(Meter(screen, "grading", "programs", done, total))
        for warning in problems.warnings:
            screen.note(f"warning: {warning}")
        screen.note(
            f"grading {total} completions of {len(problems)} problems with {execution.workers} "
            f"workers{f', resuming after row {done}' if done else ''}"
        )
        stop = stack.enter_context(StopRequest(screen.note))
        judge = stack.enter_context(Judge(execution, args.run_all_tests or None))
        screen.note(f"programs are sandboxed: {described(judge.isolation)}")

        def entries() -> Iterator[tuple[Completion, Problem | None, str | None]]:
            for completion in itertools.islice(completions(), done, None):
                judged = completion.id not in skipped
                yield completion, problems[completion.id] if judged else None, completion.code

        for completion, outcome in judged_in_order(judge, execution.workers, entries(), stop.check):
            if outcome is None:
                row = skipped_row(completion, skipped[completion.id])
            else:
                row = graded_row(completion, outcome, judged_by(completion.id))
            file.write(row)
            tally.add(row)
            meter.count(tally.passed)
        speed = (tally.graded - before) / meter.seconds
    return f"{tally.summary()}; {speed:.2f} programs/s"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 1 when the judge failed, 130 when stopped."""
    args = tyro.cli(Arguments, args=argv, prog="python -m rlif_jax.grade")
    with exit_on_user_error():
        try:
            print(grade(args), flush=True)
        except SandboxError as error:
            print(
                f"error: the judge failed, not a program: {error}. The rows before are in "
                f"{args.out}: run the same command to resume after them.",
                file=sys.stderr,
            )
            sys.exit(1)
        except (Interrupted, KeyboardInterrupt):
            print(f"stopped; run the same command to resume from {args.out}")
            sys.exit(130)


if __name__ == "__main__":
    main()
