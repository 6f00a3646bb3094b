"""The outcome of a study: each method's accuracy before, at its peak and at the end, over seeds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlif_jax.reporting.seeds import (
    Change,
    SeedMean,
    change,
    equivalence_p,
    holm,
    seed_mean,
    sentence,
)
from rlif_jax.run.log import recorded_lines
from rlif_jax.run.monitor import COLLAPSED
from rlif_jax.run.retention import quality
from rlif_jax.storage.folder import Folder


@dataclass(frozen=True)
class RunOutcome:
    """Held-out accuracy of a run by step, and what its last step was like.

    `collapsed` is the step with which the guard has told a collapse, None without one.
    """

    accuracy: Mapping[int, float]
    length: float
    entropy: float
    collapsed: int | None = None

    @classmethod
    def read(cls, folder: Folder) -> "RunOutcome | None":
        """From a run's metrics.jsonl; None where it has no evaluation before and after training."""
        records = [json.loads(line) for _, line in recorded_lines(folder / "metrics.jsonl")]
        return cls.of(records)

    @classmethod
    def of(cls, records: Sequence[Mapping[str, float]]) -> "RunOutcome | None":
        """From the lines of metrics.jsonl, as `read`."""
        known = ((record["step"], quality(record)) for record in records)
        accuracy = {int(step): value for step, value in known if value is not None}
        if len(accuracy) < 2 or 0 not in accuracy:
            return None
        last = records[-1]
        told = (int(r["step"]) for r in records if r.get("collapse/state") == COLLAPSED)
        return cls(
            accuracy,
            last.get("rollout/response_length", math.nan),
            last.get("stats/token_entropy", math.nan),
            next(told, None),
        )

    @property
    def before(self) -> float:
        return self.accuracy[0]

    @property
    def final(self) -> float:
        return self.accuracy[max(self.accuracy)]

    @property
    def peak(self) -> float:
        return max(self.accuracy.values())


@dataclass(frozen=True)
class MethodOutcome:
    """Of a method's finished seeds: accuracies, length and entropy at the end, and what changed.

    `gain` is the end minus the start, `drop` the end minus the peak, `beyond` the end minus that of
    the control with the same seed, None without one. `verdict` is about `beyond`, or `gain`;
    `collapsed` are the steps of `RunOutcome`, by seed.
    """

    name: str
    before: SeedMean
    peak: SeedMean
    final: SeedMean
    length: SeedMean
    entropy: SeedMean
    collapsed: tuple[int | None, ...]
    gain: Change
    drop: Change
    beyond: Change | None
    verdict: str


def summarise(
    runs: Mapping[str, Mapping[int, RunOutcome]], control: str, margin: float
) -> list[MethodOutcome]:
    """The methods, each with its runs by seed, against `control` where it is among them.

    p-values of the verdicts are adjusted by Holm over all methods that have one.
    """
    held = {
        name: _held(seeds, {} if name == control else runs.get(control, {}))
        for name, seeds in runs.items()
    }
    tested = {name: one.p for name, (one, _) in held.items() if one.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    outcomes = []
    for name, seeds in runs.items():
        one, compared = held[name]
        ordered = [seeds[seed] for seed in sorted(seeds)]
        within = equivalence_p(one.difference, margin)
        against = control if compared else "its start"
        final = [run.final for run in ordered]
        outcomes.append(
            MethodOutcome(
                name=name,
                before=seed_mean([run.before for run in ordered]),
                peak=seed_mean([run.peak for run in ordered]),
                final=seed_mean(final),
                length=seed_mean([run.length for run in ordered]),
                entropy=seed_mean([run.entropy for run in ordered]),
                collapsed=tuple(run.collapsed for run in ordered),
                gain=change([run.before for run in ordered], final),
                drop=change([run.peak for run in ordered], final),
                beyond=one if compared else None,
                verdict=sentence(one, against, adjusted.get(name), within, margin),
            )
        )
    return outcomes


def _held(seeds: Mapping[int, RunOutcome], base: Mapping[int, RunOutcome]) -> tuple[Change, bool]:
    """The end against that of `base` with the same seeds; False: against its start.

    One shared seed of several, which allows no claim, is passed over for the start of all.
    """
    shared = sorted(seeds.keys() & base.keys())
    if len(shared) >= min(2, len(seeds)):
        return change([base[s].final for s in shared], [seeds[s].final for s in shared]), True
    runs = [seeds[seed] for seed in sorted(seeds)]
    return change([run.before for run in runs], [run.final for run in runs]), False


def shown(outcomes: Sequence[MethodOutcome]) -> Group:
    """The outcomes as a table, accuracies in percent, and below it what may be said of each."""
    table = Table(box=None, pad_edge=False)
    columns: dict[str, Any] = {
        "method": lambda one: one.name,
        "seeds": lambda one: f"{one.final.n}",
        "before": lambda one: one.before.text(100),
        "peak": lambda one: one.peak.text(100),
        "final": lambda one: one.final.text(100),
        "tokens": lambda one: one.length.text(1, 0),
        "entropy": lambda one: one.entropy.text(1, 2),
        "collapse at": lambda one: ", ".join(f"{step or '-'}" for step in one.collapsed),
    }
    for name in columns:
        table.add_column(name, no_wrap=name == "method")
    for one in outcomes:
        table.add_row(*(cell(one) for cell in columns.values()))
    return Group(table, "", *(Text(f"{one.name}: {one.verdict}") for one in outcomes))
