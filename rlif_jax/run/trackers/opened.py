"""The trackers of a run, all told the same; one that fails is left behind, and the run is not."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlif_jax.errors import UserError
from rlif_jax.run.trackers.tracked import TrackedRun, Tracker

_CLASSES = {
    "tensorboard": "TensorBoard",
    "wandb": "Wandb",
    "mlflow": "MLflow",
    "trackio": "Trackio",
}
"""The class of each name that log.to may have, in the file of that name."""

_PACKAGES = {
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
}
"""What each of them imports that rlif_jax itself does not need."""


def check_installed(names: Sequence[str]) -> None:
    """Refuse trackers whose packages are not installed, before devices are touched.

    Raises:
        UserError: names each package that is missing, how to install it, and how to do without.
    """
    problems = [
        f"log.to has {name!r}, and the package {package} is not installed: pip install "
        f"'rlif_jax[{name}]', or leave {name} out of log.to"
        for name in names
        for package in _PACKAGES.get(name, ())
        if importlib.util.find_spec(package) is None
    ]
    if problems:
        raise UserError("; ".join(problems))


class Trackers:
    """The trackers of a run by `names`, opened; see `Tracker` for what they are told.

    metrics.jsonl is what counts: one that raises, now or later, is left out from then on, and
    `note` is told so once. A `UserError`, which says that the run folder itself cannot be written,
    is raised.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun, note: Callable[[str], None]):
        self._note = note
        self._opened: dict[str, Tracker] = {}
        for name in names:
            self._guarded(name, lambda name=name: self._open(name, run))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.metrics(step, values))

    def completions(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.completions(step, records))

    def artifact(self, path: Path) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.artifact(path))

    def close(self) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.close())

    def _open(self, name: str, run: TrackedRun) -> None:
        module = importlib.import_module(f"rlif_jax.run.trackers.{name}")
        self._opened[name] = tracker = getattr(module, _CLASSES[name])(run)
        if name != "tensorboard":
            self._note(f"{name}: {tracker.where}")

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._opened.items()):
            self._guarded(name, lambda tracker=tracker: tell(tracker))

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except UserError:
            raise
        except Exception as error:  # what a client raises, which may be anything
            self._opened.pop(name, None)
            said = " ".join(str(error).split())[:300] or type(error).__name__
            self._note(
                f"warning: {name} gets no more of this run: {said}. metrics.jsonl has all of it"
            )
