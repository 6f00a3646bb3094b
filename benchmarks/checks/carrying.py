"""Programs that try to move a bit from one test to a later one: does any bit move?

    python -m benchmarks.checks.carrying [--programs 2000] [--seed 0] [--workers 2]

Draws programs from the parts in tests/support/execution/carrying.py and judges each on three tests
with the same input. An honest judge gives all three the same answer. Prints one JSON line: the
programs, how many ran (their first test looked for the bit and left it without raising), each
program whose bit moved, with its parts, its answers and the plainest form that still moves, and the
parts that ran in no program that was drawn with them, which shows attacks that work nowhere. The
exit status is 1 when a bit moved.
"""

import argparse
import dataclasses
import json
from collections import Counter, deque
from concurrent.futures import Future
from itertools import islice

from rich.console import Console
from rich.progress import Progress

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from tests.support.execution.carrying import PROBLEM, Parts, answered, drawn, moved, plainest, ran

WAITING = 16  # programs that are submitted ahead
CHOICES = ("holder", "encoding", "way", "step", "around", "look_at", "leave_at")


class Tally:
    """What became of the programs."""

    def __init__(self, judge: Judge):
        self._judge = judge
        self.ran = 0
        self.moved: list[dict] = []
        self._tried: dict[str, Counter[str]] = {choice: Counter() for choice in CHOICES}
        self._worked: dict[str, Counter[str]] = {choice: Counter() for choice in CHOICES}

    def add(self, parts: Parts, future: Future) -> None:
        """Wait for a program's outcome and count it."""
        answers = answered(future.result())
        well = ran(parts, answers)
        self.ran += well
        for choice in CHOICES:
            if parts.sort != "object" or choice != "holder":  # of objects there are thousands
                self._tried[choice][getattr(parts, choice)] += 1
                self._worked[choice][getattr(parts, choice)] += well
        if moved(parts, answers):
            plain = plainest(parts, self._moves)
            found = {"parts": dataclasses.asdict(parts), "answers": answers}
            self.moved.append(found | {"plainest": plain.code})

    def _moves(self, parts: Parts) -> bool:
        return moved(parts, answered(self._judge.submit(PROBLEM, parts.code).result()))

    def never_ran(self) -> dict[str, dict[str, int]]:
        """Parts that were drawn, with how often, and were in no program that ran."""
        return {
            choice: {name: n for name, n in sorted(tried.items()) if not self._worked[choice][name]}
            for choice, tried in self._tried.items()
        }


def main() -> None:
    """Judge the programs and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.programs < 1:
        parser.error("--programs must be at least 1")
    execution = config.Execution(workers=args.workers, time_limit_s=6.0, memory_mb=512)
    waiting: deque[tuple[Parts, Future]] = deque()
    with (
        Judge(execution, run_all_tests=True) as judge,
        Progress(console=Console(stderr=True)) as progress,
    ):
        tally = Tally(judge)
        items = islice(drawn(args.seed), args.programs)
        for parts in progress.track(items, total=args.programs, description="programs"):
            if len(waiting) == WAITING:
                tally.add(*waiting.popleft())
            waiting.append((parts, judge.submit(PROBLEM, parts.code)))
        while waiting:
            tally.add(*waiting.popleft())
    figures = {"figure": "bits moved between tests", "programs": args.programs, "seed": args.seed}
    figures |= {"ran": tally.ran, "moved": len(tally.moved), "never_ran": tally.never_ran()}
    print(json.dumps(figures | {"programs_moved": tally.moved}))
    raise SystemExit(1 if tally.moved else 0)


if __name__ == "__main__":
    main()
