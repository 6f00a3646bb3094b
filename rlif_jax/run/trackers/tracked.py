"""What all trackers share: the run that they are told of, and what each of them can be told."""

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rlif_jax.run.disk import disk_errors
from rlif_jax.storage.folder import Folder, in_bucket
from rlif_jax.storage.user_cache import cache_folder
from rlif_jax.storage.whole_file import write_whole

PROJECT = "rlif_jax"
"""What trackers that sort runs into projects or experiments call this one."""

COLUMNS = ("problem", "sample", "verdict", "reward", "length", "completion")
"""Columns of a step's table of completions, named as in rollouts/."""

MAX_ROWS = 32
"""Most completions in the table of a step."""

MAX_TEXT = 2000
"""Most characters of a text in a table."""

Step = tuple[int, Mapping[str, float], Sequence[Mapping[str, Any]]]
"""A recorded step: its number, its metrics and the completions that are shown of it, or none."""

T = TypeVar("T")


class Tracker(Protocol):
    """One tracker of one run, opened by its class with a `TrackedRun`.

    Each method may raise whatever its client raises; `Trackers` then does without that tracker.
    """

    where: str
    """Where people find the run."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of a step, as in metrics.jsonl; after its completions."""
        ...

    def completions(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """A table of some completions of a step; `records` are lines of rollouts/."""
        ...

    def artifact(self, path: Path) -> None:
        """A file that belongs to the run."""
        ...

    def close(self) -> None:
        """End the run of this process; a later one may continue it."""
        ...


@dataclass(frozen=True)
class TrackedRun:
    """A run as its trackers are told of it when they are opened.

    `config` is the resolved configuration. `resume_step` is the last step that is kept of an
    earlier process, -1 for none. `steps` are those that metrics.jsonl has, and `history(after)` is
    what was recorded after a step, in order.
    """

    name: str
    folder: Folder
    config: Mapping[str, Any]
    resume_step: int
    steps: frozenset[int]
    history: Callable[[int], Iterable[Step]]

    def files(self, tracker: str) -> Path:
        """Where a tracker keeps its files: below the run folder.

        For a run folder in a bucket, which their clients cannot write to: below the user's cache.
        """
        if in_bucket(self.folder):
            bucket = str(self.folder).removeprefix("gs://")
            return cache_folder() / "trackers" / bucket / tracker
        return Path(self.folder).resolve() / tracker

    def known(self, tracker: str) -> dict[str, Any]:
        """What `keep` has kept of a tracker in trackers.json of the run folder."""
        return self._known().get(tracker, {})

    def keep(self, tracker: str, **values: Any) -> None:
        """Keep something that a later process needs. Raises UserError as `disk_errors`."""
        known = self._known()
        known[tracker] = known.get(tracker, {}) | values
        with disk_errors(self._path):
            write_whole(self._path, (json.dumps(known, indent=2) + "\n").encode())

    def identity(self, tracker: str) -> str:
        """The name of this run among all, with which every process of it opens the tracker."""
        if not (found := self.known(tracker).get("id")):
            plain = re.sub(r"[^A-Za-z0-9_-]", "-", self.name)[:80]
            found = f"{plain}-{secrets.token_hex(4)}"
            self.keep(tracker, id=found)
        return found

    @property
    def _path(self) -> Folder:
        return self.folder / "trackers.json"

    def _known(self) -> dict[str, Any]:
        return json.loads(self._path.read_text("utf-8")) if self._path.is_file() else {}


def write_again(tracker: Tracker, steps: Iterable[Step]) -> None:
    """Tell a tracker of steps that were recorded before."""
    for step, values, records in steps:
        if records:
            tracker.completions(step, records)
        if values:
            tracker.metrics(step, values)


def picked(rows: Sequence[T]) -> Sequence[T]:
    """At most MAX_ROWS of the rows of a step, evenly spread, so that all its problems are there."""
    return rows[:: max(1, -(-len(rows) // MAX_ROWS))]


def table(records: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The rows of a table with `COLUMNS` that shows some of a step's completions."""
    return [[_cell(record.get(column)) for column in COLUMNS] for record in picked(records)]


def plain_key(key: str) -> str:
    """A metric's key with a _ for each character that MLflow refuses, such as the @ of avg@4."""
    return re.sub(r"[^/\w.\- :]", "_", key)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}..."
    return text.encode("utf-8", "replace").decode()  # a model may write half a surrogate pair
