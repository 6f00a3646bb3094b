"""The outcome of a study: each method's accuracy before, at its peak and at the end, over seeds."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

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
from rlif_jax.storage.folder import Folder

_ACCURACY = re.compile(r"eval/.+/avg@\d+")


@dataclass(frozen=True)
class RunOutcome:
    """Held-out accuracy of a run by step, and what its last step was like."""

    accuracy: Mapping[int, float]
    length: float
    entropy: float

    @classmethod
    def read(cls, folder: Folder) -> "RunOutcome | None":
        """From a run's metrics.jsonl; None where it has no evaluation before and after training."""
        records = [json.loads(line) for _, line in recorded_lines(folder / "metrics.jsonl")]
        accuracy = {
            record["step"]: value
            for record in records
            for name, value in record.items()
            if _ACCURACY.fullmatch(name)
        }
        if len(accuracy) < 2 or 0 not in accuracy:
            return None
        last = records[-1]
        return cls(accuracy, last["rollout/response_length"], last["stats/token_entropy"])

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
    the control with the same seed, None without one. `verdict` is about `beyond`, or `gain`.
    """

    name: str
    before: SeedMean
    peak: SeedMean
    final: SeedMean
    length: SeedMean
    entropy: SeedMean
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
    changes: dict[str, tuple[Change, list[float]]] = {}
    for name, seeds in runs.items():
        base = runs.get(control, {}) if name != control else {}
        shared = sorted(seeds.keys() & base.keys())
        before = [base[s].final if shared else seeds[s].before for s in shared or sorted(seeds)]
        after = [seeds[s].final for s in shared or sorted(seeds)]
        pairs = [b - a for a, b in zip(before, after, strict=True)]
        changes[name] = change(before, after), pairs
    tested = [(name, one.p) for name, (one, _) in changes.items() if one.p is not None]
    adjusted = dict(zip((n for n, _ in tested), holm([p for _, p in tested]), strict=True))
    outcomes = []
    for name, seeds in runs.items():
        one, pairs = changes[name]
        ordered = [seeds[seed] for seed in sorted(seeds)]
        compared = name != control and bool(seeds.keys() & runs.get(control, {}).keys())
        said = sentence(one, adjusted.get(name), equivalence_p(pairs, margin), margin)
        final = [run.final for run in ordered]
        outcomes.append(
            MethodOutcome(
                name=name,
                before=seed_mean([run.before for run in ordered]),
                peak=seed_mean([run.peak for run in ordered]),
                final=seed_mean(final),
                length=seed_mean([run.length for run in ordered]),
                entropy=seed_mean([run.entropy for run in ordered]),
                gain=change([run.before for run in ordered], final),
                drop=change([run.peak for run in ordered], final),
                beyond=one if compared else None,
                verdict=f"{said}, against {control if compared else 'its start'}",
            )
        )
    return outcomes


def shown(outcomes: Sequence[MethodOutcome]) -> Table:
    """The outcomes as a table; accuracies in percent."""
    table = Table(box=None, pad_edge=False)
    columns: dict[str, Any] = {
        "method": lambda one: one.name,
        "seeds": lambda one: f"{one.final.n}",
        "before": lambda one: one.before.text(100),
        "peak": lambda one: one.peak.text(100),
        "final": lambda one: one.final.text(100),
        "tokens": lambda one: one.length.text(1, 0),
        "entropy": lambda one: one.entropy.text(1, 2),
        "verdict": lambda one: one.verdict,
    }
    for name in columns:
        table.add_column(name, overflow="fold")
    for one in outcomes:
        table.add_row(*(cell(one) for cell in columns.values()))
    return table
