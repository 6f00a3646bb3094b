"""What a run folder says of one of its checkpoints: from what, how, with which scores it came."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from rlif_jax.config import Config
from rlif_jax.reporting.recorded_runs import RecordedRun
from rlif_jax.run.log import PROVENANCE, recorded_lines
from rlif_jax.run.provenance import recorded_config
from rlif_jax.storage.folder import Folder, bucket_errors, folder_at
from rlif_jax.weights.pypi_models import PUBLISHED
from rlif_jax.weights.run_folder import recorded_source


@dataclass(frozen=True)
class RunFacts:
    """What a run folder holds about its checkpoint of `step`.

    `problems` are how many it had drawn up to `step`, 0: not recorded.
    """

    run: RecordedRun
    step: int
    config: Config
    problems: int

    @classmethod
    def read(cls, folder: Folder, step: int) -> "RunFacts":
        """Raises UserError where config.json or the metrics cannot be read."""
        with bucket_errors(folder):
            config = recorded_config(folder)
            drawn = [
                json.loads(line).get("problems", ())
                for number, line in recorded_lines(folder / PROVENANCE)
                if number <= step
            ]
            return cls(
                RecordedRun.read(folder),
                step,
                config,
                len({problem for batch in drawn for problem in batch}),
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
