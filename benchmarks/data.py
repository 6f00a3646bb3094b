"""How long a problem set takes to build and to open, and a problem and a batch to read.

    python -m benchmarks.data [--problems 1000 --tests 20 --characters 100 --large 20 --repeats 5]

Writes LiveCodeBench rows to a temporary folder, one JSONL file of `--problems` rows with `--tests`
tests of that many characters each, and the six release files with their 1,055 rows, half of whose
private tests are packed as the official ones are. The user cache is in that folder, too. Then, each
round in turn: the file is built anew; opened, in this process and by a new one that also imports
what it needs; all problems are read in random order; the training iterator gives 100 batches of
8, at once one after the other, and to a caller who works 50 ms on each; and a file of `--large`
problems with 12 MB of tests each, as some of LiveCodeBench's have, is built and read. Prints one
JSON line a figure, the median and the spread over the rounds. The files are in the operating
system's cache.
"""

import argparse
import base64
import json
import os
import pickle
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rlif_jax.data.pipeline import problem_batches
from rlif_jax.data.sets.livecodebench import FILES
from rlif_jax.data.sets.named import ProblemSource, problem_source

ADDED = (400, 111, 101, 101, 167, 175)  # problems of each release
BATCH, BATCHES, WORK_S = 8, 100, 0.05
NEW_PROCESS = """
import sys
from rlif_jax.data.sets.named import problem_source
problem_source(sys.argv[1], "validation")
"""
TELL_PEAK = """
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
LARGE = (30, 400_000)  # tests of a problem, and characters of each


def rows(first: int, count: int, tests: int, characters: int, packed: bool) -> Iterator[dict]:
    """LiveCodeBench rows numbered from `first` on; every tenth test is public."""
    rng = random.Random(first)
    for number in range(first, first + count):
        cases = [
            {"input": rng.randbytes(characters // 2).hex(), "output": "1"} for _ in range(tests)
        ]
        public = -(-tests // 10)
        private = json.dumps(cases[public:])
        if packed and number % 2:
            private = base64.b64encode(zlib.compress(pickle.dumps(private))).decode()
        yield {
            "question_title": f"Problem {number}",
            "question_content": "Print 1, whatever the input is. " * 50,
            "platform": "atcoder",
            "question_id": f"q{number}",
            "contest_id": "c",
            "contest_date": f"2024-{1 + number % 12:02}-01T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": json.dumps(cases[:public]),
            "private_test_cases": private,
            "metadata": "{}",
        }


def write(path: Path, *numbers: int, packed: bool = False) -> None:
    """A file of such rows."""
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(*numbers, packed))


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def batch_seconds(source: ProblemSource, work_s: float) -> float:
    """Mean wait for a batch of the training iterator by a caller who works that long on each."""
    batches, waited = problem_batches(source, BATCH, seed=0), 0.0
    next(batches)
    for _ in range(BATCHES):
        if work_s:
            time.sleep(work_s)
        waited += seconds(lambda: next(batches))
    return waited / BATCHES


def measure(file: Path, releases: str) -> dict[str, float]:
    """One round."""
    cache = Path(os.environ["RLIF_CACHE"])
    shutil.rmtree(cache / "datasets", ignore_errors=True)
    figures = {"build, s": seconds(lambda: problem_source(str(file)))}
    figures["build the six releases, s"] = seconds(lambda: problem_source(releases))
    figures["open, s"] = seconds(lambda: problem_source(str(file)))
    figures["open the six releases, s"] = seconds(lambda: problem_source(releases))
    command = [sys.executable, "-c", NEW_PROCESS, releases]
    figures["open them in a new process, imports included, s"] = seconds(
        lambda: subprocess.run(command, check=True)
    )
    source = problem_source(str(file))
    order = random.Random(0).sample(range(len(source)), len(source))
    reading = seconds(lambda: [source[i] for i in order])
    figures["read a problem, ms"] = 1e3 * reading / len(order)
    describing = seconds(lambda: [source.entry(i) for i in order])
    figures["describe a problem, ms"] = 1e3 * describing / len(order)
    figures[f"wait for a batch of {BATCH}, one after the other, ms"] = 1e3 * batch_seconds(
        source, 0
    )
    figures[f"wait for a batch of {BATCH}, with {1e3 * WORK_S:.0f} ms of work on each, ms"] = (
        1e3 * batch_seconds(source, WORK_S)
    )
    return figures


def measure_large(file: Path) -> dict[str, float]:
    """One round with few problems whose tests are many megabytes."""
    command = [sys.executable, "-c", NEW_PROCESS + TELL_PEAK, str(file)]
    start = time.perf_counter()
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = {"build a file with large tests, in a new process, s": time.perf_counter() - start}
    figures["its peak memory, MB"] = float(peak)
    source = problem_source(str(file))
    count = len(source)
    reading = seconds(lambda: sum(len(source[i].tests) for i in range(count)))
    figures["read such a problem, ms"] = 1e3 * reading / count
    stating = seconds(lambda: [source.statement(i) for i in range(count)])
    figures["read it without its tests, ms"] = 1e3 * stating / count
    return figures


def main() -> None:
    """Write the files, then measure round after round."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--tests", type=int, default=20)
    parser.add_argument("--characters", type=int, default=100)
    parser.add_argument("--large", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["RLIF_CACHE"] = str(Path(temporary, "cache"))
        sizes = (options.tests, options.characters)
        file = Path(temporary, "problems.jsonl")
        write(file, 0, options.problems, *sizes)
        for number, (name, added) in enumerate(zip(FILES, ADDED, strict=True)):
            write(Path(temporary, name), sum(ADDED[:number]), added, *sizes, packed=True)
        size = file.stat().st_size
        print(json.dumps({"figure": "file", "problems": options.problems, "bytes": size}))
        large = Path(temporary, "large.jsonl")
        write(large, 0, options.large, *LARGE, packed=True)
        releases = f"livecodebench@{temporary}"
        rounds = [measure(file, releases) | measure_large(large) for _ in range(options.repeats)]
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        spread = [round(min(values), 4), round(max(values), 4)]
        figure = {"figure": name, "median": round(statistics.median(values), 4), "spread": spread}
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
