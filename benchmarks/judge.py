"""How fast the judge is, beside LiveCodeBench's own checker, and what it holds on to.

    python -m benchmarks.judge [--official PYTHON] [--rounds 5] [--programs 20000]

64 correct solutions with 10 small tests each go through two workers, as programs that read standard
input, as functions, and as programs that are wrong at their first test. PYTHON is the interpreter
of an environment with the package nvidia-livecodebench: its checker, with a pool of two processes,
then judges the same in turn with ours. Then: what is left of the speed while one of two workers
hangs, and, with --programs, the memory after 1,000 and after so many programs. Prints the machine,
then one JSON line a figure: the median over the rounds and the spread; a ratio is the median of the
rounds' ratios. Neither the start of our workers nor that of the checker's interpreter is timed.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Iterator

from benchmarks.host_state import descendants, machine, resident_kib
from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Problem, Test

EXECUTION = config.Execution(workers=2, time_limit_s=6.0, memory_mb=1024)
SOLUTIONS, TESTS = 64, 10
# Bodies of `def solve(a)` for a list of integers, as short as solutions of easy problems are.
BODIES = (
    "return sum(a)",
    "return sorted(a)[len(a) // 2]",
    "g = 0\nfor x in a:\n    g = gcd(g, x)\nreturn g",
    "best = now = a[0]\nfor x in a[1:]:\n    now = max(x, now + x)\n    best = max(best, now)\n"
    "return best",
    "seen = {}\nfor i, x in enumerate(a):\n    if x in seen:\n        return seen[x]\n"
    "    seen[x] = i\nreturn -1",
    "return len(list(groupby(sorted(a))))",
    "h = list(a)\nheapify(h)\nt = 0\nwhile len(h) > 1:\n    s = heappop(h) + heappop(h)\n"
    "    t += s\n    heappush(h, s)\nreturn t",
    "tails = []\nfor x in a:\n    i = bisect_left(tails, x)\n    tails[i:i + 1] = [x]\n"
    "return len(tails)",
)
IMPORTS = (
    "from math import gcd\nfrom itertools import groupby\nfrom bisect import bisect_left\n"
    "from heapq import heapify, heappop, heappush\n"
)
# Runs in the checker's own environment: a line with samples and programs in, a line with seconds
# and results out. The checker prints, so the answers go to a descriptor of their own.
OFFICIAL_CHECKER = """
import contextlib, json, os, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from livecodebench.evaluation.compute_code_generation_metrics import codegen_metrics
print(json.dumps("ready"), file=answers, flush=True)
for line in sys.stdin:
    samples, programs = json.loads(line)
    start = time.perf_counter()
    _, results, _ = codegen_metrics(samples, [[p] for p in programs], k_list=[1],
                                    num_process_evaluate=2, timeout=6)
    seconds = time.perf_counter() - start
    results = [[bool(x > 0) for x in results[i][0]] for i in range(len(programs))]
    print(json.dumps([seconds, results]), file=answers, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Workload:
    """Programs and their problems, and the results that each must have."""

    name: str
    problems: list[Problem]
    programs: list[str]
    results: list[bool]

    def count(self) -> int:
        """Tests that are run in one round."""
        return len(self.programs) * len(self.results)


def workload(kind: str, wrong: bool = False) -> Workload:
    """Programs of one kind ("stdin" or "functional"), correct or wrong at their first test."""
    problems, programs = [], []
    for number in range(SOLUTIONS):
        draw = random.Random(number)
        body = BODIES[number % len(BODIES)].replace("\n", "\n    ")
        function = f"{IMPORTS}def solve(a):\n    {body}\n"
        names: dict = {}
        exec(function, names)
        lists = [[draw.randint(1, 60) for _ in range(draw.randint(5, 40))] for _ in range(TESTS)]
        answers = [names["solve"](a) + wrong for a in lists]
        if kind == "stdin":
            programs.append(
                f"{function}n = int(input())\na = list(map(int, input().split()))\nprint(solve(a))"
            )
            inputs = [f"{len(a)}\n{' '.join(map(str, a))}\n" for a in lists]
        else:
            method = function.removeprefix(IMPORTS).replace("(a)", "(self, a)", 1)
            programs.append(
                f"{IMPORTS}class Solution:\n    " + method.rstrip().replace("\n", "\n    ")
            )
            inputs = [json.dumps(a) for a in lists]
        tests = tuple(Test(i, str(o), kind) for i, o in zip(inputs, answers, strict=True))
        entry_point = None if kind == "stdin" else "solve"
        problems.append(Problem(f"{kind}-{number}", "", tests, entry_point=entry_point))
    name = "wrong" if wrong else kind
    return Workload(name, problems, programs, [False] if wrong else [True] * TESTS)


def sample(problem: Problem) -> dict[str, str]:
    """A problem as LiveCodeBench's checker takes it."""
    fields = {
        "inputs": [test.input for test in problem.tests],
        "outputs": [test.output for test in problem.tests],
        "fn_name": problem.entry_point,
    }
    return {"input_output": json.dumps(fields)}


def seconds_ours(judge: Judge, work: Workload) -> float:
    """Seconds in which the judge gets through the workload."""
    start = time.perf_counter()
    pairs = zip(work.problems, work.programs, strict=True)
    outcomes = [future.result() for future in [judge.submit(*pair) for pair in pairs]]
    seconds = time.perf_counter() - start
    for outcome in outcomes:
        check(work, [result == "passed" for result in outcome.results], outcome)
    return seconds


class Official:
    """LiveCodeBench's checker in a process of its own, kept for all rounds."""

    def __init__(self, python: str):
        self.process = subprocess.Popen(
            [python, "-c", OFFICIAL_CHECKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if not self.process.stdout.readline():
            raise SystemExit(f"{python} cannot import livecodebench.evaluation and its needs")

    def seconds(self, work: Workload) -> float:
        """Seconds in which it gets through the workload."""
        self.process.stdin.write(json.dumps([list(map(sample, work.problems)), work.programs]))
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"LiveCodeBench's checker ended with {self.process.wait()}")
        seconds, results = json.loads(answer)
        for result in results:
            check(work, result, result)
        return seconds

    def close(self) -> None:
        """Let it end, and wait for that."""
        self.process.communicate()


def check(work: Workload, results: list[bool], said: object) -> None:
    """End the benchmark when a program was not judged as it must be: its time says nothing."""
    if results != work.results:
        raise SystemExit(f"{work.name}: expected {work.results}, but the answer was {said}")


def report(name: str, values: list[float]) -> None:
    """Print a figure: median and spread."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 1 if middle >= 20 else 2
    spread = [round(low, digits), round(high, digits)]
    figure = {"figure": name, "median": round(middle, digits), "spread": spread}
    print(json.dumps(figure), flush=True)


def compare_speed(official: Official | None, rounds: int) -> None:
    """Judge each workload with both, in turn."""
    with Judge(EXECUTION) as judge:
        works = (workload("stdin"), workload("functional"), workload("stdin", wrong=True))
        for work in works:
            seconds_ours(judge, work)
            seconds: dict[str, list[float]] = {"ours": [], "official": []}
            for _ in range(rounds):
                seconds["ours"].append(seconds_ours(judge, work))
                if official:
                    seconds["official"].append(official.seconds(work))
            unit = "programs/s" if work.name == "wrong" else "tests/s"
            for whose, values in seconds.items():
                if values:
                    report(f"{unit}, {work.name}, {whose}", [work.count() / s for s in values])
            if official:
                ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
                report(f"{unit}, {work.name}, ours over official", ratios)


def measure_hanging(rounds: int) -> None:
    """Compare one worker alone with one beside a worker whose program sleeps."""
    work = workload("stdin")
    hang = Problem("hang", "", (Test("", "", "stdin"),))
    shares = []
    with Judge(dataclasses.replace(EXECUTION, workers=1)) as single:
        seconds_ours(single, work)
        for _ in range(rounds):
            alone = seconds_ours(single, work)
            with Judge(EXECUTION) as pair:
                seconds_ours(pair, work)
                sleeper = pair.submit(hang, "import time\nwhile True: time.sleep(1)")
                beside = seconds_ours(pair, work)
                if sleeper.done():
                    raise SystemExit(f"the hanging program ended too soon: {sleeper.result()}")
            shares.append(alone / beside)
    report("tests/s, two workers of which one hangs, over one worker", shares)


def measure_memory(programs: int) -> None:
    """Judge so many programs, a few at a time, and print the memory on the way."""
    work = workload("stdin")
    stages = sorted({min(1000, programs), programs})
    with Judge(EXECUTION) as judge:
        for done, outcome in enumerate(stream(judge, work, programs), 1):
            check(work, [result == "passed" for result in outcome.results], outcome)
            if done in stages:
                workers = sum(resident_kib(pid) for pid in descendants(os.getpid()))
                figure = {
                    "figure": f"resident memory after {done} programs",
                    "judge_mib": round(resident_kib(os.getpid()) / 1024, 1),
                    "workers_mib": round(workers / 1024, 1),
                }
                print(json.dumps(figure), flush=True)


def stream(judge: Judge, work: Workload, programs: int) -> Iterator[Outcome]:
    """Outcomes of so many programs, of which a few wait at any time."""
    waiting: deque = deque()
    for number in range(programs):
        if len(waiting) == 16:
            yield waiting.popleft().result()
        index = number % len(work.programs)
        waiting.append(judge.submit(work.problems[index], work.programs[index]))
    while waiting:
        yield waiting.popleft().result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--official", help="Python of an environment with nvidia-livecodebench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--programs", type=int, default=0, help="length of the memory part")
    args = parser.parse_args()
    print(json.dumps(machine()), flush=True)
    with contextlib.ExitStack() as stack:
        official = None
        if args.official:
            official = stack.enter_context(contextlib.closing(Official(args.official)))
        compare_speed(official, args.rounds)
    measure_hanging(args.rounds)
    if args.programs:
        measure_memory(args.programs)


if __name__ == "__main__":
    main()
