"""Grade programs against the tests of their problems.

python -m rlif_jax.grade --problems FILE.jsonl --completions FILE.jsonl --out FILE.jsonl
"""

import contextlib
import itertools
import math
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from rlif_jax.config import Execution, own_limits
from rlif_jax.config.validate import validate_arguments
from rlif_jax.console.interrupt import Interrupted, StopRequest
from rlif_jax.console.meter import Meter
from rlif_jax.data.formats.fields import LONGEST_TIME_LIMIT_S
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.execution.pool import Judge, SandboxError, described
from rlif_jax.grading.graded_file import GradedFile, graded_row, skipped_row
from rlif_jax.grading.inputs import Completion, ProblemFile, read_completions
from rlif_jax.problem import Outcome, Problem

UNFINISHED_PER_WORKER = 4
"""Programs handed to the judge and not yet judged; only these keep their problems in memory."""
AHEAD_PER_WORKER = 64
"""Results that wait for an earlier one: a program that hangs does not stop the other workers."""
STOP_CHECK_S = 0.2


@dataclass(frozen=True)
class Arguments:
    """Run programs against the tests of their problems, and write one row of results for each.

    The same command goes on from an --out file that an earlier run began. A test may use the
    seconds of CPU time that its problem's row names, else 6; --execution.time-limit-s S bounds
    every row's limit, and is the limit of rows that name none.
    """

    problems: str
    """JSONL file of problems in any form that data/formats reads, or of {id, input_output}."""
    completions: str
    """JSONL file of {id, code} or {id, completion}, null where there is none; ids may repeat."""
    out: str
    """JSONL file for the results, in the order of the completions."""
    run_all_tests: bool = False
    """Go on after a program's first failing test."""
    keep_errata: bool = False
    """Grade also problems in LiveCodeBench's errata, whose tests reject right programs."""
    execution: Execution = field(default_factory=own_limits)


@dataclass
class Tally:
    """Results added up: passed and graded completions of each problem, verdicts, skipped rows.

    `expected` is the number of problems that should have a completion.
    """

    expected: int = 0
    problems: dict[str, tuple[int, int]] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    skipped: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of the output."""
        if "skipped" in row:
            self.skipped += 1
            return
        passed, graded = self.problems.get(row["id"], (0, 0))
        self.problems[row["id"]] = passed + row["passed"], graded + 1
        self.verdicts[row["verdict"]] += 1

    @property
    def graded(self) -> int:
        """Completions that were judged."""
        return self.verdicts.total()

    @property
    def passed(self) -> str:
        """How many of them passed, and their share."""
        passed = self.verdicts["passed"]
        return f"{passed} passed ({passed / max(self.graded, 1):.1%})"

    @property
    def pass_at_1(self) -> float:
        """Mean over problems with completions of the share of their completions that pass."""
        return self._passed_share / len(self.problems)

    @property
    def _passed_share(self) -> float:
        return math.fsum(passed / graded for passed, graded in self.problems.values())

    def summary(self) -> str:
        """All of it in a line."""
        parts = [f"graded {self.graded} completions of {len(self.problems)} problems"]
        if self.graded:
            parts[0] += f": {self.passed}"
            parts.append(f"pass@1 over problems {self.pass_at_1:.3f}")
        if (missing := self.expected - len(self.problems)) > 0:
            have = "problem has" if missing == 1 else "problems have"
            parts.append(
                f"{missing} {have} no completion, pass@1 over all {self.expected} problems "
                f"{self._passed_share / self.expected:.3f}"
            )
        if self.graded:
            parts.append(", ".join(f"{v} {n}" for v, n in sorted(self.verdicts.items())))
        if self.skipped:
            parts.append(f"{self.skipped} skipped, of problems in LiveCodeBench's errata")
        return "; ".join(parts)


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

        done, total = file.resume(completions(), skipped, tally.add)
        if total == 0:
            raise UserError(f"{args.completions} holds no completions; add one row per line.")
        if done == total:
            return tally.summary()
        before = tally.graded
        report = stack.enter_context(Meter("grading", "programs", done, total))
        for warning in problems.warnings:
            report.note(f"warning: {warning}")
        report.note(
            f"grading {total} completions of {len(problems)} problems with {execution.workers} "
            f"workers{f', going on after row {done}' if done else ''}"
        )
        stop = stack.enter_context(StopRequest(report.note))
        judge = stack.enter_context(Judge(execution, args.run_all_tests or None))
        report.note(f"programs are isolated: {described(judge.isolation)}")

        def write(row: Mapping[str, Any]) -> None:
            file.write(row)
            tally.add(row)
            report.count(tally.passed)

        rest = itertools.islice(completions(), done, None)
        judge_in_order(judge, execution.workers, problems, rest, skipped, write, stop.check)
        speed = (tally.graded - before) / report.seconds
    return f"{tally.summary()}; {speed:.2f} programs/s"


def judge_in_order(
    judge: Judge,
    workers: int,
    problems: ProblemFile,
    completions: Iterable[Completion],
    skipped: Mapping[str, str],
    write: Callable[[Mapping[str, Any]], None],
    check: Callable[[], None],
) -> None:
    """Judge completions, except those of `skipped` problems, and `write` each row in their order.

    `check` is called now and then; where it raises Interrupted, what is finished is written first.
    """
    free = threading.Semaphore(UNFINISHED_PER_WORKER * workers)
    waiting: deque[tuple[Completion, Future[Outcome] | None]] = deque()

    def write_finished() -> None:
        while waiting:
            completion, future = waiting[0]
            if future is None:
                write(skipped_row(completion, skipped[completion.id]))
            elif future.done():
                write(graded_row(completion, future.result()))
            else:
                return
            waiting.popleft()

    def write_to(length: int) -> None:
        write_finished()
        while len(waiting) > length:
            check()
            wait([waiting[0][1]], STOP_CHECK_S)
            write_finished()

    try:
        for completion in completions:
            check()
            write_to(AHEAD_PER_WORKER * workers)
            future = None
            if completion.id not in skipped:
                while not free.acquire(timeout=STOP_CHECK_S):
                    check()
                    write_finished()
                future = judge.submit(problems[completion.id], completion.code)
                future.add_done_callback(lambda _: free.release())
            waiting.append((completion, future))
        write_to(0)
    except Interrupted:
        write_finished()
        raise


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for bad input, 1 when the judge failed, 130 when stopped."""
    args = tyro.cli(Arguments, args=argv, prog="python -m rlif_jax.grade")
    with exit_on_user_error():
        try:
            print(grade(args), flush=True)
        except SandboxError as error:
            print(
                f"error: the judge failed, not a program: {error}. The rows before are in "
                f"{args.out}, and the same command goes on after them.",
                file=sys.stderr,
            )
            sys.exit(1)
        except (Interrupted, KeyboardInterrupt):
            print(f"stopped; the same command goes on from {args.out}")
            sys.exit(130)


if __name__ == "__main__":
    main()
