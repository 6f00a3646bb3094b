"""What sampler.py and learning.py measure with: processes that take turns, and JSON lines."""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass


def say(**figure) -> None:
    """One JSON line."""
    print(json.dumps(figure), flush=True)


def names_of(parts: Collection[str]) -> Callable[[str], list[str]]:
    """What argparse reads the names of some of these parts with, separated by commas."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(parts):
            raise argparse.ArgumentTypeError(f"no part {unknown}; there are {','.join(parts)}")
        return names

    return read


@contextlib.contextmanager
def in_folder(model: str, threads: int) -> Iterator[str]:
    """A temporary Hugging Face folder with a model, for sides on the first processors allowed."""
    # The sides inherit it. JAX and torch size their thread pools by it when they start.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.join(temporary, "model")
        convert = [sys.executable, "-m", "rlif_jax.convert", "--model", model]
        subprocess.run([*convert, "--out", folder], check=True, stdout=sys.stderr)
        yield folder


class Side:
    """One side's process; `launched`, `ready` and `imported` are times of the monotonic clock."""

    def __init__(self, name: str, command: list[str], threads: int):
        self.name = name
        self._environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self._environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        self.launched = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        ready = self._answer()
        self.ready, self.versions = time.monotonic(), ready["ready"]
        self.imported = ready.get("imported")

    def ask(self, request: dict) -> dict:
        """Send a request and wait for its answer."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with status {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_) -> None:
        """Let the process end."""
        self._process.stdin.close()
        self._process.wait()

    def report_memory(self, figure: str) -> float:
        """Print and return the peak."""
        peak = self.ask({"memory": True})["peak"]
        say(figure=f"{figure}, {self.name}, peak memory", unit="MB", value=round(peak))
        return peak


@dataclass
class Contender:
    """One of the works that take turns: what is asked of which side, in at most `rounds` rounds.

    `warm` is asked once before the rounds; None: `request` itself.
    """

    name: str
    side: Side
    request: dict
    warm: dict | None = None
    rounds: int = sys.maxsize


Turns = list[dict[str, dict]]
"""Each round's answers by contender."""


def in_turn(contenders: list[Contender], rounds: int) -> Turns:
    """Every contender once untimed, then one after the other in each round."""
    for c in contenders:
        c.side.ask(c.warm or c.request)
    return [
        {c.name: c.side.ask(c.request) for c in contenders if round_ < c.rounds}
        for round_ in range(rounds)
    ]


def rounded(values: list[float]) -> dict:
    """The median, the spread, and of how many."""
    digits = 4
    spread = [round(min(values), digits), round(max(values), digits)]
    median = round(statistics.median(values), digits)
    return {"median": median, "spread": spread, "rounds": len(values)}


def report(figure: str, turns: Turns, unit: str, value: Callable[[dict], float]) -> None:
    """Each contender's values, and the first one's over every other's."""
    ours, *others = turns[0]
    for name in (ours, *others):
        answers = [turn[name] for turn in turns if name in turn]
        compiled = {}
        if "compiled" in answers[0]:
            compiled = {"compiled": sum(answer["compiled"] for answer in answers)}
        say(
            figure=f"{figure}, {name}",
            unit=unit,
            **rounded([value(answer) for answer in answers]),
            **compiled,
        )
    for other in others:
        ratios = [value(turn[ours]) / value(turn[other]) for turn in turns if other in turn]
        say(figure=f"{figure}, {ours} over {other}", **rounded(ratios))
