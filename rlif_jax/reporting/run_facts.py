"""What a run folder says of one of its checkpoints: from what, how, with which scores it came."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlif_jax.config import Config
from rlif_jax.run.log import PROVENANCE, recorded_lines
from rlif_jax.run.monitor import COLLAPSED, SAID, first_collapse
from rlif_jax.run.provenance import recorded_config
from rlif_jax.storage.folder import Folder, bucket_errors, folder_at
from rlif_jax.weights.pypi_models import PUBLISHED
from rlif_jax.weights.run_folder import recorded_source


@dataclass(frozen=True)
class Score:
    """Held-out accuracy of a step on a data set, with its 95% interval.

    `metric` is avg@K; `others` are pass@K by their names; `length` is in tokens. What a step's
    metrics lack is None, or not among the others.
    """

    step: int
    dataset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    others: Mapping[str, float]
    length: float | None


@dataclass(frozen=True)
class Collapse:
    """The step with which the guard told a collapse, None: it told none up to `last`.

    `since` is the step with which the signs began and `said` what they were, "" where that cannot
    be told; `returned_to` is the checkpoint from which the run went on, None: from where it was.
    """

    last: int
    step: int | None = None
    since: int | None = None
    said: str = ""
    returned_to: int | None = None


@dataclass(frozen=True)
class RunFacts:
    """What a run folder holds about its checkpoint of `step`.

    `source` is the model that it started from, None where it is not recorded. `problems` are how
    many it had drawn up to `step`, 0: not recorded. `collapse` is None where no step has a state.
    """

    name: str
    step: int
    config: Config
    record: Mapping[str, Any]
    source: str | None
    problems: int
    scores: Sequence[Score]
    collapse: Collapse | None

    @classmethod
    def read(cls, run: Folder, step: int) -> "RunFacts":
        """Raises UserError where config.json or the metrics cannot be read."""
        with bucket_errors(run):
            config = recorded_config(run)
            record = json.loads((run / "config.json").read_text("utf-8"))
            records = [json.loads(line) for _, line in recorded_lines(run / "metrics.jsonl")]
            drawn = [
                json.loads(line).get("problems", ())
                for number, line in recorded_lines(run / PROVENANCE)
                if number <= step
            ]
        return cls(
            name=run.name,
            step=step,
            config=config,
            record=record,
            source=recorded_source(run),
            problems=len({problem for batch in drawn for problem in batch}),
            scores=[score for one in records for score in scores_of(one)],
            collapse=collapse_of(config, records),
        )


def scores_of(metrics: Mapping[str, float]) -> list[Score]:
    """The held-out scores among the metrics of a step, one for each data set."""
    scores = []
    for key, value in metrics.items():
        if not (found := re.fullmatch(r"eval/(.+)/(avg@\d+)", key)):
            continue
        dataset, metric = found.groups()
        others = {
            name.rpartition("/")[2]: other
            for name, other in metrics.items()
            if re.fullmatch(re.escape(f"eval/{dataset}/pass@") + r"\d+", name)
        }
        low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
        length = metrics.get(f"eval/{dataset}/response_length")
        scores.append(
            Score(int(metrics["step"]), dataset, metric, value, low, high, others, length)
        )
    return scores


def collapse_of(config: Config, records: Sequence[Mapping[str, float]]) -> Collapse | None:
    """What the guard recorded in the metrics of the steps."""
    watched = [one for one in records if "collapse/state" in one]
    if not watched:
        return None
    last = int(watched[-1]["step"])
    told = next((one for one in watched if one["collapse/state"] == COLLAPSED), None)
    if told is None:
        return Collapse(last)
    step, back = int(told["step"]), told.get("collapse/returned_to")
    steps = [(int(one["step"]), one) for one in records if one["step"] >= 1]
    found = first_collapse(steps, config.guard.first_steps, config.guard.patience)
    reading = found[1] if found is not None and found[0] == step else None
    return Collapse(
        last,
        step,
        reading.since if reading else None,
        SAID[reading.sign] if reading else "",
        None if back is None else int(back),
    )


@dataclass(frozen=True)
class Base:
    """A model as a card may name it, without folders: `name`, and `hub`, its ORG/NAME on the Hub.

    `source` is what it comes from in the end, `steps` are the runs in between as (name, step).
    """

    name: str
    hub: str
    revision: str
    source: str
    steps: tuple[tuple[str, int], ...] = ()


def base_of(source: str) -> Base:
    """The model that a source names, through the runs that started one from another."""
    steps: list[tuple[str, int]] = []
    while (place := run_of(source)) and (place[0].name, place[1]) not in steps:
        steps.append((place[0].name, place[1]))
        before = recorded_source(place[0])
        if before is None:
            return Base(steps[-1][0], "", "", source, tuple(steps))
        source = before
    kind, _, rest = source.partition(":")
    named, _, revision = rest.partition("@")
    if kind == "hf":
        return Base(named, named, revision, source, tuple(steps))
    if kind == "pypi":
        hub = PUBLISHED[rest].hub if rest in PUBLISHED else ""
        return Base(hub or rest, hub, "", source, tuple(steps))
    return Base(Path(source).name, "", "", source, tuple(steps))


def run_of(source: str) -> tuple[Folder, int] | None:
    """The run folder and the step of an opened model's source; None: it is no checkpoint."""
    if source.startswith(("hf:", "pypi:")):
        return None
    found = re.fullmatch(r"(.+)/checkpoints/(\d+)/?", source)
    return (folder_at(found[1]), int(found[2])) if found else None
