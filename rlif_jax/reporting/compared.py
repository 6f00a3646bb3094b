"""The parts of the page about configurations: how methods differ, what made runs, sweeps."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlif_jax.reporting.recorded_runs import Method, RecordedRun
from rlif_jax.reporting.reward_texts import RewardText, reward_text


@dataclass(frozen=True)
class Differences:
    """Fields of the configuration: those in which methods differ, and those that all share."""

    fields: Mapping[str, Sequence[str]]
    shared: Mapping[str, str]


def differences(methods: Sequence[Method]) -> Differences:
    """By field a text for each method; a seed, a name and a folder are no difference."""
    configs = [method.runs[0].config for method in methods]
    names = dict.fromkeys(name for config in configs for name in config)
    fields, shared = {}, {}
    for name in names:
        if name in ("seed", "name", "run_dir", "resume", "compile_cache"):
            continue
        values = [_value(config.get(name, "")) for config in configs]
        if len(set(values)) > 1:
            fields[name] = values
        else:
            shared[name] = values[0]
    return Differences(fields, shared)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value) or "none"
    if isinstance(value, bool):  # first: 1 equals True
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)


@dataclass(frozen=True)
class Maker:
    """What made a run: the code's revision, the model, devices and versions, in words."""

    revision: str
    model: str
    devices: str
    versions: str

    @classmethod
    def of(cls, run: RecordedRun) -> "Maker":
        """From config.json, as far as it says."""
        facts = run.provenance
        commit, plus, changes = str(facts.get("revision") or "unknown").partition("+")
        versions = (facts.get("versions") or {}).items()
        return cls(
            revision=commit[:12] + plus + changes,
            model=run.source or "unknown",
            devices=f"{len(facts.get('devices') or ())} x {facts.get('platform', 'unknown')}",
            versions=", ".join(f"{name} {version}" for name, version in versions),
        )


def makers(runs: Sequence[RecordedRun]) -> dict[Maker, list[str]]:
    """The names of the runs by what made them."""
    found: dict[Maker, list[str]] = {}
    for run in runs:
        found.setdefault(Maker.of(run), []).append(run.name)
    return found


@dataclass(frozen=True)
class SweptField:
    """Methods that differ in one number alone: its values, and accuracies best and at the end."""

    field: str
    names: Sequence[str]
    values: Sequence[str]
    best: Sequence[float]
    end: Sequence[float]


def sweeps(methods: Sequence[Method]) -> list[SweptField]:
    """The sweeps among methods: all that have been evaluated and agree in all but one number."""
    known = [
        (method, [run.outcome for run in method.runs if run.outcome])
        for method in methods
        if method.runs[0].config
    ]
    known = [(method, outcomes) for method, outcomes in known if outcomes]
    configs = [method.runs[0].method for method, _ in known]
    found = []
    for field in dict.fromkeys(name for config in configs for name in config):
        groups: dict[str, list[int]] = {}
        for place, config in enumerate(configs):
            value = config.get(field)
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = repr(sorted((k, str(v)) for k, v in config.items() if k != field))
                groups.setdefault(rest, []).append(place)
        for places in groups.values():
            places.sort(key=lambda place: configs[place][field])
            values = [_value(configs[place][field]) for place in places]
            if len(set(values)) < 2:
                continue
            runs = [known[place][1] for place in places]
            found.append(
                SweptField(
                    field,
                    [known[place][0].name for place in places],
                    values,
                    [statistics.fmean(run.peak for run in of) for of in runs],
                    [statistics.fmean(run.final for run in of) for of in runs],
                )
            )
    return found


def rewarded(methods: Sequence[Method]) -> dict[str, RewardText]:
    """The rewards that the methods use, each with what it gives and where it comes from."""
    terms = (term for m in methods for term in m.runs[0].config.get("reward.terms") or ())
    return {name: reward_text(name) for name in dict.fromkeys(str(term[0]) for term in terms)}
