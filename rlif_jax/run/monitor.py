"""Signs that a policy collapses, read from what every step records: no labels are needed.

Certainty rewards lift a policy first and then collapse it, in one of two shapes (arXiv 2606.20881):
responses become short, or they repeat themselves up to the limit; in both, the entropy of tokens
goes to nothing. A sign compares the last steps with the first ones of the run, on a scale on which
1 is its threshold. `benchmarks.guard` measures hits, misses and false alarms on recorded and on
drawn traces; benchmarks/RESULTS.md says where the thresholds come from.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

HEALTHY, SUSPICIOUS, COLLAPSED = 0, 1, 2
"""The values of collapse/state. A run that has collapsed stays so."""

LENGTH, TRUNCATED = "rollout/response_length", "rollout/truncated_fraction"
REPETITION, ENTROPY = "rollout/repetition_ratio", "stats/token_entropy"
REWARD, NO_CODE, UNCOMPILED = "reward/mean", "exec/no_code", "exec/compile_error"
STREAMS = (LENGTH, TRUNCATED, REPETITION, ENTROPY, REWARD, NO_CODE, UNCOMPILED)
"""What is read of a step's metrics; where one is missing its sign is not looked for."""

SAID = {
    "short": "responses have become short and certain",
    "limit": "responses repeat themselves up to the limit",
    "entropy": "the entropy of tokens is gone",
    "divergence": "the reward rises while programs break",
}
"""The signs in words."""

RECENT = 3
"""Steps over which a stream is averaged: each step has other problems."""
SHORT = 0.3
"""Of the first steps' nats in a response, its length times the entropy of a token."""
CERTAIN = 1 / 3
"""Of the first steps' entropy of a token."""
SURE = 0.05
"""Nats a token that count as none: what lies below differs by chance, and is no sign of a fall."""
CUT_OFF, REPEATED = 0.5, 0.5
"""Share of responses that are cut off, and of the way to responses that repeat themselves wholly,
at which both together count as a run to the limit."""
NOISE = 1e-6
"""Below which rewards do not differ: the mean of those that are normalised within their groups is
0 but for rounding, so that divergence is not looked for with reward.combine=normalise_then_sum."""
BROKEN = 0.25
"""More responses without a program that compiles than at best, while the reward is up."""


@dataclass(frozen=True)
class Reading:
    """What the signs say after a step.

    `score` is that of the strongest one and `sign` its name: short, limit, entropy or divergence.
    `since` is the step with which they began, None while there are none.
    """

    score: float
    state: int
    sign: str
    since: int | None

    def metrics(self) -> dict[str, float]:
        """The `collapse/` metrics."""
        return {"collapse/score": self.score, "collapse/state": float(self.state)}


class Monitor:
    """Watches the steps of a run, which are held against its `first_steps` first ones.

    It is a collapse when there are signs in `patience` steps in a row.
    """

    def __init__(self, first_steps: int, patience: int):
        self._first_steps, self._patience = first_steps, patience
        self._numbers: list[int] = []
        self._steps: list[dict[str, float]] = []
        self._in_a_row = 0
        self.collapse: Reading | None = None
        """The reading that has told of the collapse; None: none has."""

    def seen(self, step: int, metrics: Mapping[str, float]) -> Reading:
        """Look at the metrics of the next step."""
        self._numbers.append(step)
        self._steps.append({name: metrics[name] for name in STREAMS if name in metrics})
        scores = signs(self._steps, self._first_steps)
        sign = max(scores, key=scores.__getitem__, default="")
        score = max(scores.get(sign, 0.0), 0.0)
        self._in_a_row = self._in_a_row + 1 if score >= 1 else 0
        since = self._numbers[-self._in_a_row] if self._in_a_row else None
        state = SUSPICIOUS if self._in_a_row else HEALTHY
        if self.collapse is None and self._in_a_row >= self._patience:
            self.collapse = Reading(score, COLLAPSED, sign, since)
        if self.collapse is not None:
            return Reading(score, COLLAPSED, self.collapse.sign, self.collapse.since)
        return Reading(score, state, sign if since else "", since)


def first_collapse(
    steps: Iterable[tuple[int, Mapping[str, float]]], first_steps: int, patience: int
) -> tuple[int, Reading] | None:
    """The first of these steps, each with its metrics, that tells a collapse; None: none does."""
    monitor = Monitor(first_steps, patience)
    for step, metrics in steps:
        monitor.seen(step, metrics)
        if monitor.collapse is not None:
            return step, monitor.collapse
    return None


def signs(steps: Sequence[Mapping[str, float]], first_steps: int) -> dict[str, float]:
    """How strong each sign is after these steps, the `STREAMS` of each; 1 is its threshold.

    Nothing is said of the first steps themselves. Empty where no sign can be looked for.
    """
    if len(steps) < first_steps + RECENT:
        return {}
    scores = {}
    if _has(steps, ENTROPY):
        entropy = [max(step[ENTROPY], SURE) for step in steps]
        scores["entropy"] = _fallen(entropy, first_steps, CERTAIN)
    if _has(steps, ENTROPY, LENGTH):
        nats = [step[LENGTH] * max(step[ENTROPY], SURE) for step in steps]
        scores["short"] = _fallen(nats, first_steps, SHORT)
    if _has(steps, TRUNCATED, REPETITION):
        cut_off = fmean(_stream(steps, TRUNCATED)[-RECENT:])
        scores["limit"] = min(
            cut_off / CUT_OFF, _risen(_stream(steps, REPETITION), first_steps) / REPEATED
        )
    if _has(steps, REWARD, NO_CODE, UNCOMPILED):
        broken = [step[NO_CODE] + step[UNCOMPILED] for step in steps]
        scores["divergence"] = min(_up(_stream(steps, REWARD), first_steps), _worse(broken))
    return scores


def _has(steps: Sequence[Mapping[str, float]], *names: str) -> bool:
    return all(name in step for step in steps for name in names)


def _stream(steps: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [step[name] for step in steps]


def _fallen(stream: Sequence[float], first_steps: int, share: float) -> float:
    """1 where the last steps have `share` of the first ones' value; 2 where its square is left."""
    first, now = median(stream[:first_steps]), fmean(stream[-RECENT:])
    if first <= 0:
        return 0.0
    return math.log(max(now, 1e-6 * first) / first) / math.log(share)


def _risen(stream: Sequence[float], first_steps: int) -> float:
    """Which part of the way from the first steps' value to 1 the last steps have gone."""
    first, now = median(stream[:first_steps]), fmean(stream[-RECENT:])
    return (now - first) / (1 - first) if first < 1 else 0.0


def _up(stream: Sequence[float], first_steps: int) -> float:
    """By how many of their standard deviations the last steps lie above the first ones."""
    first, now = stream[:first_steps], fmean(stream[-RECENT:])
    rise = now - fmean(first)
    spread = stdev(first)
    return rise / max(spread, NOISE)


def _worse(stream: Sequence[float]) -> float:
    """How far the last steps lie above the lowest mean of as many neighbours, in `BROKEN`."""
    means = [fmean(stream[i : i + RECENT]) for i in range(len(stream) - RECENT + 1)]
    return (means[-1] - min(means)) / BROKEN
