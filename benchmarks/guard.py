"""Whether the guard tells a collapse in time, and only a collapse.

    python -m benchmarks.guard [--runs benchmarks/laptop_study] [--drawn 1000] [--patience 2]

Recorded runs are the folders below `--runs` that hold metrics.jsonl. Drawn traces have the shapes
that the study describes (arXiv 2606.20881): responses that shrink, responses that repeat themselves
up to the limit, training from tests, and random rewards, with their published lengths, entropies
and accuracies at the end, and speed, onset and noise at random. One JSON line a run, and one a
shape.

A trace has lost its gain in the first step after the peak of its held-out accuracy at which less
than half of the gain over the start is left or, at any step, less than a quarter of the start; in
recorded runs that is known only where they were evaluated. `in time`: the guard fires
before; `late`: after it; `missed`: never. Of a trace that never loses its gain, `silent` or
`fires`. A run that the guard has changed says nothing of what it would have lost: `acted`.
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from rlif_jax.config import Guard
from rlif_jax.reporting.recorded_runs import RecordedRun, folders_of, read_runs
from rlif_jax.run.monitor import ENTROPY, LENGTH, REPETITION, TRUNCATED, first_collapse
from rlif_jax.run.retention import quality

STEPS, LIMIT = 105, 8192
DEFAULT = Guard()
Trace = list[tuple[int, dict[str, float]]]


@dataclass(frozen=True)
class Shape:
    """How a policy ends, relative to a start of 5,500 tokens and 0.6 nats a token.

    `length` and `entropy` are shares of the start, `repetition` and `cut_off` shares of responses.
    `accuracy` are points above the start at the steps of `KNOTS`.
    """

    length: float
    entropy: float
    repetition: float
    cut_off: float
    accuracy: tuple[float, ...]


KNOTS = (0, 20, 50, 80, 105)
SHAPES = {
    "short, as self-certainty": Shape(0.11, 0.1, 0.2, 0.0, (0, 0.7, -0.1, -3.2, -4.0)),
    "short, as disparity": Shape(0.18, 0.1, 0.2, 0.0, (0, 1.2, 0.1, -0.9, -1.4)),
    "limit, as token entropy": Shape(1.49, 0.012, 0.9, 0.98, (0, 1.3, -0.1, -1.4, -2.1)),
    "tests": Shape(0.65, 0.6, 0.2, 0.05, (0, 1.5, 1.0, 2.9, 2.6)),
    "random": Shape(1.0, 1.0, 0.2, 0.2, (0, 0, 0, 0, 0)),
}
"""Accuracies of R1-Distill-1.5B at 16k. Ends as far as published: 600, 985, 8,174 and 3,600
tokens; 0.007 nats of trajectory entropy at the limit, 0.66 after training from tests."""


def drawn(shape: Shape, rng: np.random.Generator) -> Trace:
    """A run of this shape: streams go to their ends evenly in their logarithm, or faster at first.

    How streams move between their ends is not published; accuracy goes through its knots.
    """
    pace, bend = rng.uniform(0.8, 1.5), rng.uniform(0.5, 1.0)
    noise = rng.uniform(0.03, 0.12)
    t = pace * np.arange(1, STEPS + 1)
    way = np.minimum(t / STEPS, 1) ** bend

    def stream(start: float, end: float) -> np.ndarray:
        return start * (end / start) ** way * np.exp(noise * rng.standard_normal(STEPS))

    def share(start: float, end: float) -> np.ndarray:
        values = start + (end - start) * way + noise / 2 * rng.standard_normal(STEPS)
        return np.clip(values, 0, 1)

    accuracy = np.interp(t, KNOTS, shape.accuracy)
    streams = {
        LENGTH: np.minimum(stream(5500, 5500 * shape.length), LIMIT),
        ENTROPY: stream(0.6, 0.6 * shape.entropy),
        REPETITION: share(0.2, shape.repetition),
        TRUNCATED: share(0.2, shape.cut_off),
        "eval/drawn/avg@4": accuracy,
    }
    rows = [{name: float(x[i]) for name, x in streams.items()} for i in range(STEPS)]
    return [(0, {"eval/drawn/avg@4": 0.0}), *((i + 1, row) for i, row in enumerate(rows))]


def gain_lost(trace: Trace) -> int | None:
    """The first step with less than half of the gain of a peak before, or a quarter of the start.

    None: there is none.
    """
    known = [(step, value) for step, m in trace if (value := quality(m)) is not None]
    start = known[0][1]
    peak_step, peak = max(known, key=lambda one: one[1])
    half = (start + peak) / 2 if peak > start else start / 4
    lost = (s for s, value in known if value < start / 4 or (s > peak_step and value < half))
    return next(lost, None)


@dataclass(frozen=True)
class Judged:
    """What the guard says of a trace, with the steps of its word and of the loss."""

    outcome: str
    fired: int | None
    lost: int | None
    sign: str | None = None


def judged_trace(trace: Trace, guard: Guard) -> Judged:
    """When the gain was lost and when the guard fired, and what that is called."""
    trained = [(step, metrics) for step, metrics in trace if step]
    lost, found = gain_lost(trace), first_collapse(trained, guard.first_steps, guard.patience)
    if found is None:
        return Judged("silent" if lost is None else "missed", None, lost)
    step, reading = found
    called = "fires" if lost is None else "in time" if step <= lost else "late"
    return Judged(called, step, lost, reading.sign)


def judged(run: RecordedRun, guard: Guard = DEFAULT) -> Judged:
    """The outcome of a recorded run."""
    found = judged_trace([(int(record["step"]), dict(record)) for record in run.records], guard)
    acts = run.config.get("guard.action") in ("switch", "rollback", "stop")
    return replace(found, outcome="acted") if acts and found.fired else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path(__file__).parent / "laptop_study")
    parser.add_argument("--drawn", type=int, default=1000, help="traces of each shape")
    parser.add_argument("--first-steps", type=int, default=Guard.first_steps)
    parser.add_argument("--patience", type=int, default=Guard.patience)
    asked = parser.parse_args()
    guard = Guard(first_steps=asked.first_steps, patience=asked.patience)
    for run in read_runs(folders_of([asked.runs])):
        print(json.dumps({"run": run.name, **asdict(judged(run, guard))}), flush=True)
    for name, shape in SHAPES.items():
        rng = np.random.default_rng(0)
        found = [judged_trace(drawn(shape, rng), guard) for _ in range(asked.drawn)]
        steps = [one.fired for one in found if one.fired is not None]
        figures = {
            "shape": name,
            "outcomes": dict(Counter(one.outcome for one in found)),
            "fired": float(np.median(steps)) if steps else None,
            "lost": float(np.median([one.lost or STEPS for one in found])),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
