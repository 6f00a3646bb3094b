"""The outcome of a study: each method's accuracy before, at its peak and at the end, over seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
from rlif_jax.run.retention import quality_key


@dataclass(frozen=True)
class RunOutcome:
    """Held-out accuracy of a run by step, as the metric `key`, and what its last step was like.

    `collapsed` is the step with which its metrics tell a collapse, None where they do not.
    """

    key: str
    accuracy: Mapping[int, float]
    length: float
    entropy: float
    collapsed: int | None = None

    @classmethod
    def of(
        cls, records: Sequence[Mapping[str, float]], collapsed: int | None
    ) -> "RunOutcome | None":
        """From the lines of metrics.jsonl; None without evaluations before and after training."""
        key = next((name for record in records if (name := quality_key(record))), "")
        accuracy = {int(record["step"]): record[key] for record in records if key in record}
        if len(accuracy) < 2 or 0 not in accuracy:
            return None
        last = records[-1]
        return cls(
            key,
            accuracy,
            last.get("rollout/response_length", math.nan),
            last.get("stats/token_entropy", math.nan),
            collapsed,
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

    One shared seed of several, which allows no claim, is passed over for the start of all, and so
    is a base that was evaluated on other problems.
    """
    shared = sorted(s for s in seeds.keys() & base.keys() if seeds[s].key == base[s].key)
    if len(shared) >= min(2, len(seeds)):
        return change([base[s].final for s in shared], [seeds[s].final for s in shared]), True
    runs = [seeds[seed] for seed in sorted(seeds)]
    return change([run.before for run in runs], [run.final for run in runs]), False


LEGEND = (
    "held-out accuracy in percent, at the end with half of its 95% interval over seeds; response "
    "length and entropy of a token at the end; steps at which the metrics tell a collapse, by seed"
)


def shown(outcomes: Sequence[MethodOutcome]) -> Table:
    """The outcomes as a table, see `LEGEND`; a long name is broken at -from-."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    columns: dict[str, Callable[[MethodOutcome], str]] = {
        "method": lambda one: one.name.replace("-from-", " from "),
        "seeds": lambda one: f"{one.final.n}",
        "before": lambda one: f"{100 * one.before.value:z.1f}",
        "peak": lambda one: f"{100 * one.peak.value:z.1f}",
        "final": lambda one: _spread(one.final),
        "tokens": lambda one: f"{one.length.value:.0f}",
        "nats": lambda one: f"{one.entropy.value:.2f}",
        "told at": lambda one: ", ".join(f"{step or '-'}" for step in one.collapsed),
    }
    for name in columns:
        table.add_column(name, no_wrap=name != "method", overflow="fold")
    for one in outcomes:
        table.add_row(*(cell(one) for cell in columns.values()))
    return table


def _spread(mean: SeedMean) -> str:
    """In percent."""
    half = "" if mean.high is None else f" ± {100 * (mean.high - mean.value):.1f}"
    return f"{100 * mean.value:z.1f}{half}"
