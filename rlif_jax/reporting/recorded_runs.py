"""Runs as their folders record them: finished, going on or killed, and by any version."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlif_jax.config import Config
from rlif_jax.errors import UserError
from rlif_jax.reporting.held_out import Score, scores_of
from rlif_jax.reporting.study_summary import RunOutcome
from rlif_jax.run.folder import in_use
from rlif_jax.run.log import recorded_lines
from rlif_jax.run.monitor import Reading, first_collapse
from rlif_jax.run.provenance import flat, may_change, resolved
from rlif_jax.storage.folder import Folder, bucket_errors, in_bucket, is_folder

METRICS = "metrics.jsonl"
_SEED = re.compile(r"[-_]?s(eed)?\d+$")


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder holds, as far as it is written.

    `config` has the fields of the configuration by their dotted names, `provenance` the rest of
    config.json; both are empty where there is none. `records` are the lines of metrics.jsonl.
    """

    name: str
    folder: Folder
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    records: Sequence[Mapping[str, float]]
    in_use: bool | None = False

    @classmethod
    def read(cls, folder: Folder, name: str = "") -> "RecordedRun":
        """Read a folder; a last line that is half-written is left out.

        Raises:
            UserError: a file of it cannot be read.
        """
        with bucket_errors(folder):
            records = [json.loads(line) for _, line in recorded_lines(folder / METRICS)]
            made = _made(folder / "config.json")
            config = flat(made.pop("config", {}))
            if config:  # what an older version did not have counts as its default
                config = flat(resolved(Config())) | config
            return cls(name or _name(folder), folder, config, made, records, in_use(folder))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def source(self) -> str | None:
        """The model that it started from; None where config.json does not say."""
        return (self.provenance.get("model") or {}).get("source")

    @property
    def last_step(self) -> int:
        """The last step that is recorded; 0 before the first."""
        return max((int(record["step"]) for record in self.records), default=0)

    @property
    def asked_steps(self) -> int:
        """Steps that the configuration asks for; those that are recorded where it is not known."""
        return int(self.config.get("steps", self.last_step))

    @property
    def state(self) -> str:
        """How far it is, in words."""
        done, asked = self.last_step, self.asked_steps
        if done >= asked:
            return f"finished, {done} steps"
        if self.ended:
            return f"ended by the guard at step {done} of {asked}"
        how = {True: "going on ", False: "stopped ", None: ""}[self.in_use]
        return f"{how}at step {done} of {asked}"

    @property
    def ended(self) -> bool:
        """Whether it has done all that it was to do; a killed run has not."""
        stopped = self.config.get("guard.action") == "stop" and self.collapse is not None
        return stopped or self.last_step >= self.asked_steps

    @property
    def going_on(self) -> bool:
        """Whether more may be recorded; also where nobody can tell whether it is in use."""
        return self.in_use is not False and not self.ended

    @property
    def method(self) -> dict[str, Any]:
        """The fields of the configuration that make its numbers, but for the seed."""
        return {
            name: value
            for name, value in self.config.items()
            if name == "steps" or not (name == "seed" or may_change(name))
        }

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric; both are empty where no step has it."""
        pairs = [(int(r["step"]), float(r[key])) for r in self.records if r.get(key) is not None]
        return [step for step, _ in pairs], [value for _, value in pairs]

    @property
    def model_collapse_step(self) -> int | None:
        """The first step whose rewards are right for less than 1% of the responses; None: none.

        So defined in arXiv 2603.08660. It is known for rewards of 0 and 1, and needs labels.
        """
        below = (
            step for step, v in zip(*self.series("exec/reward_accuracy"), strict=True) if v < 0.01
        )
        return next(below, None)

    @cached_property
    def scores(self) -> list[Score]:
        """What its evaluations gave, in the order of the steps."""
        return [score for record in self.records for score in scores_of(record)]

    @cached_property
    def outcome(self) -> RunOutcome | None:
        """Its held-out accuracy, None where it was not evaluated before and after training."""
        return RunOutcome.of(self.records, self.collapse and self.collapse[0])

    @cached_property
    def collapse(self) -> tuple[int, Reading] | None:
        """The step with which the metrics tell a collapse, and the signs; None: they do not.

        It is what the guard says with the run's own settings, or with the defaults.
        """
        first = int(self.config.get("guard.first_steps", 3))
        patience = int(self.config.get("guard.patience", 2))
        steps = ((int(r["step"]), r) for r in self.records if r["step"] >= 1)
        return first_collapse(steps, first, patience)


@dataclass(frozen=True)
class Method:
    """Runs that differ by their seeds alone, in the order of these."""

    name: str
    runs: Sequence[RecordedRun]

    def series(self, key: str) -> tuple[list[int], list[list[float]]]:
        """The steps that all runs have of a metric, and the values at each, one for each run."""
        of_run = [dict(zip(*run.series(key), strict=True)) for run in self.runs]
        of_run = [values for values in of_run if values]
        if not of_run:
            return [], []
        steps = sorted(set.intersection(*(set(values) for values in of_run)))
        return steps, [[values[step] for values in of_run] for step in steps]


def folders_of(locations: Iterable[Folder]) -> list[Folder]:
    """The run folders among these and, for a study's folder, in them.

    Raises:
        UserError: a folder neither is a run's nor holds some.
    """
    found: list[Folder] = []
    for folder in locations:
        with bucket_errors(folder):
            if (folder / METRICS).is_file():
                found.append(folder)
                continue
            inner = sorted(folder.iterdir(), key=str) if is_folder(folder) else []
            runs = [one for one in inner if (one / METRICS).is_file()]
        if not runs:
            why = "holds no run" if is_folder(folder) else "does not exist"
            raise UserError(
                f"{folder} {why}. Give run folders, such as runs/prob_disparity, a folder of them, "
                "or results of rlif_jax.evaluate (FILE.json)."
            )
        found += runs
    return list(dict.fromkeys(found))


def read_runs(folders: Sequence[Folder]) -> list[RecordedRun]:
    """The runs of these folders, by the folders' names.

    Where two have the same name, as much of their paths stands before it as tells them apart.

    Raises:
        UserError: as `RecordedRun.read` does.
    """
    parts = [str(f if in_bucket(f) else f.resolve()).strip("/").split("/") for f in folders]
    used, names = [1] * len(parts), [_name(folder) for folder in folders]
    while any(same := [names.count(name) > 1 for name in names]) and max(used) < max(
        map(len, parts)
    ):
        used = [count + again for count, again in zip(used, same, strict=True)]
        names = ["/".join(path[-count:]) for path, count in zip(parts, used, strict=True)]
    return [RecordedRun.read(folder, name) for folder, name in zip(folders, names, strict=True)]


def methods_of(runs: Sequence[RecordedRun]) -> list[Method]:
    """Runs of one configuration but for the seed, together; those of equal seeds stay apart."""
    groups: dict[tuple[str, int], list[RecordedRun]] = {}
    for run in runs:
        same = _without_seed(run)
        number = 0
        while any(run.seed == one.seed for one in groups.get((same, number), ())):
            number += 1
        groups.setdefault((same, number), []).append(run)
    ordered = [sorted(group, key=lambda run: run.seed) for group in groups.values()]
    names = [_SEED.sub("", group[0].name) or group[0].name for group in ordered]
    return [
        Method(name if names.count(name) == 1 else group[0].name, group)
        for name, group in zip(names, ordered, strict=True)
    ]


def _without_seed(run: RecordedRun) -> str:
    """The configuration as far as runs that differ by their seeds have it in common."""
    if not run.config:
        return str(run.folder)
    kept = dict(run.method)
    if start := run.config.get("init_from"):  # another seed's run of the same method
        kept["init_from"] = re.sub(r"s\d+(@\d+)?$", r"s\1", str(start))
    return json.dumps(kept, sort_keys=True)


def _made(path: Folder) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
        record.get("config", {}).items()
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Remove it: the run is then shown without its "
            "configuration."
        ) from error
    return record


def _name(folder: Folder) -> str:
    return folder.name if in_bucket(folder) else folder.resolve().name
