"""A long run of mixed programs through the judge: is any misjudged, is anything left behind?

    python -m benchmarks.checks.soak [--programs 20000] [--seed 0] [--workers 2]

Right, wrong, crashing, slow and hanging programs, memory bombs, output floods, fork bombs, programs
that write files wherever they can, and the attacks of tests/execution/cases (attacks.jsonl and
carried.jsonl), in an order drawn by the seed. Ends with one JSON line for the machine and one a
figure: the verdicts, the false passes, the honest programs misjudged, and the state of the host
before and after. The exit status is 1 when a program was misjudged or something is left. Other
programs that make shared memory meanwhile count as left behind: run it on a machine that is
otherwise quiet.
"""

import argparse
import ctypes
import json
import os
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

from benchmarks.checks.soak_mix import MARK, PLANTED, Item, mix
from benchmarks.host_state import belongings, descendants, machine, resident_kib
from rlif_jax import config
from rlif_jax.execution.pool import Judge

PR_SET_CHILD_SUBREAPER = 36
PROGRESS_S = 10.0
GROWTH_MIB = 32  # how much memory may differ between the first programs and the last


class Tally:
    """What became of the programs; says so now and then."""

    def __init__(self, programs: int):
        self.programs = programs
        self.start = self.shown = time.monotonic()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.false_passes: list[str] = []
        self.misjudged: list[str] = []
        self.broken: list[str] = []

    def add(self, item: Item, future: Future) -> None:
        """Wait for a program and note its verdict."""
        try:
            outcome = future.result()
        except Exception as error:  # whatever it is, it is the judge's failure and is counted
            self.broken.append(f"{item.kind} {item.problem.id}: {error!r}")
            return
        self.verdicts[item.kind, outcome.verdict.value] += 1
        self.seconds[item.kind] += outcome.seconds
        if time.monotonic() - self.shown > PROGRESS_S:
            self.show()
        if outcome.verdict in item.right:
            return
        said = f"{item.kind} {item.problem.id}: {outcome.verdict.value} ({outcome.detail})"
        if outcome.passed:
            self.false_passes.append(said)
        if item.honest:
            self.misjudged.append(f"{said}: {item.code[:80]!r}")

    def show(self) -> None:
        """Print a line of progress."""
        self.shown = time.monotonic()
        done = self.verdicts.total() + len(self.broken)
        counts: Counter[str] = Counter()
        for (_, verdict), n in self.verdicts.items():
            counts[verdict] += n
        words = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
        rate = done / (self.shown - self.start)
        print(f"{done}/{self.programs}, {rate:.0f} programs/s: {words}", file=sys.stderr)

    def report(self) -> bool:
        """Print the counts; whether all is well."""
        kinds = sorted({kind for kind, _ in self.verdicts})
        for kind in kinds:
            counts = {verdict: n for (k, verdict), n in self.verdicts.items() if k == kind}
            seconds = {"worker_seconds": round(self.seconds[kind], 1)}
            print(json.dumps({"figure": f"verdicts, {kind}"} | counts | seconds))
        for name, programs in (
            ("false passes", self.false_passes),
            ("honest programs misjudged", self.misjudged),
            ("failures of the judge's machinery", self.broken),
        ):
            print(json.dumps({"figure": name, "count": len(programs), "first": programs[:5]}))
        return not (self.false_passes or self.misjudged or self.broken)


def run(judge: Judge, items: Iterable[Item], tally: Tally) -> None:
    """Judge the items, of which a few wait at any time."""
    waiting: deque[tuple[Item, Future]] = deque()
    for item in items:
        if len(waiting) == 16:
            tally.add(*waiting.popleft())
        waiting.append((item, judge.submit(item.problem, item.code)))
    while waiting:
        tally.add(*waiting.popleft())


def memory_mib() -> dict[str, float]:
    """Resident memory of this process and of all below it."""
    time.sleep(1.0)  # for the last programs to be gone
    workers = sum(map(resident_kib, descendants(os.getpid())))
    return {"judge": resident_kib(os.getpid()) / 1024, "workers": workers / 1024}


def soak(programs: int, seed: int, workers: int) -> bool:
    """Run and print; whether no program was misjudged and nothing is left."""
    execution = config.Execution(workers=workers, time_limit_s=1.0, memory_mb=512)
    # Made before the first look at descriptors: what opens them once is no leak of the judge's.
    with tempfile.TemporaryDirectory(prefix="soak_") as name:
        folder = Path(name)
        for part in ("tmp", "work"):
            (folder / part).mkdir()
        folder.chmod(0o711)  # programs may run as another user, who must pass through
        tempfile.tempdir = str(folder / "tmp")
        above = os.getcwd()
        os.chdir(folder / "work")
        marks = (MARK, *PLANTED)
        before = belongings(os.getppid(), folder, marks)
        tally, items = Tally(programs), mix(seed)
        early = min(1000, programs // 2)
        with Judge(execution) as judge:
            run(judge, islice(items, early), tally)
            memory = [memory_mib()]
            run(judge, islice(items, programs - early), tally)
            memory.append(memory_mib())
        seconds = time.monotonic() - tally.start
        after = belongings(os.getppid(), folder, marks)
        deadline = time.monotonic() + 10
        while after != before and time.monotonic() < deadline:
            time.sleep(0.1)  # the kernel takes the dead apart with a delay
            after = belongings(os.getppid(), folder, marks)
        for left in map(Path, after["files elsewhere"] | after["shared memory"]):
            if left.name.startswith(MARK):  # reported below; not to stay on a host of ours
                left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
        os.chdir(above)
        tempfile.tempdir = None
    print(json.dumps(machine()))
    print(json.dumps({"figure": "programs/s", "median": round(programs / seconds, 1)}))
    well = tally.report()
    for sort in before:
        new = sorted(after[sort] - before[sort])
        counts = {"before": len(before[sort]), "after": len(after[sort]), "new": new[:5]}
        print(json.dumps({"figure": f"left: {sort}"} | counts))
        well &= not new
    for whose, first in memory[0].items():
        last = memory[1][whose]
        figures = {f"after {early}": round(first, 1), f"after {programs}": round(last, 1)}
        print(json.dumps({"figure": f"resident memory, {whose}, MiB"} | figures))
        well &= last - first < GROWTH_MIB
    return well


def main() -> None:
    """Soak in a child, above which this process collects whatever escapes from its parents."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.programs < 2:
        parser.error("--programs must be at least 2")
    # An orphan becomes a child of the nearest such process; otherwise it would escape the count.
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("this kernel has no subreapers")
    child = os.fork()
    if child == 0:
        raise SystemExit(0 if soak(args.programs, args.seed, args.workers) else 1)
    while True:
        pid, status = os.wait()
        if pid == child:
            raise SystemExit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
