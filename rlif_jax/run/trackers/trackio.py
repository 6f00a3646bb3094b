"""Trackio, by its client: pip install 'rlif_jax[trackio]'."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlif_jax.run.trackers.tracked import COLUMNS, PROJECT, TrackedRun, table, write_again


class Trackio:
    """One run of Trackio for all processes of a run; see `Tracker`.

    It is in the database of TRACKIO_DIR, or of the run folder's trackio/ (`TRACKIO_DIR=... trackio
    show`), or in the Space or server that TRACKIO_SPACE_ID or TRACKIO_SERVER_URL name. Trackio
    reads TRACKIO_DIR once a process: a second run folder in the same process is refused.

    In a database of this machine a process that resumes writes the whole history again from
    metrics.jsonl and rollouts/, in place of what earlier processes wrote. A Space or a server takes
    no step back: a step that was sent keeps its first values. A run that resumes repeats them, but
    for times, if it is on the same kind of devices.
    """

    def __init__(self, run: TrackedRun):
        self._remote = any(map(os.environ.get, ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")))
        self._tracked = run
        trackio, folder = _imported(run.files("trackio"))
        name = run.identity("trackio")
        self._sent = run.known("trackio").get("sent", -1) if self._remote else -1
        with _quiet() if self._remote else _quiet_and_offline():
            if not self._remote:
                _delete(trackio, name)
            self._run = trackio.init(
                PROJECT,
                name=name,
                config=dict(run.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._trackio = trackio
        self.where = f"{name} of {self._run.url if self._remote else folder}"
        write_again(self, run.history(self._sent))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if step > self._sent:
            self._run.log(dict(values), step=step)
            if self._remote:
                self._tracked.keep("trackio", sent=step)

    def completions(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """See `Tracker`."""
        if step > self._sent:
            shown = self._trackio.Table(columns=list(COLUMNS), data=table(records))
            self._run.log({"completions": shown}, step=step)

    def artifact(self, path: Path) -> None:
        """See `Tracker`."""
        with _quiet():
            self._run.log_artifact(path, name=f"{path.stem}-{self._run.name}", type="report")

    def close(self) -> None:
        """See `Tracker`."""
        with _quiet():
            self._trackio.finish()


def _imported(folder: Path) -> tuple[Any, Path]:
    """The package, and the folder of its databases: TRACKIO_DIR, or this one."""
    given = os.environ.get("TRACKIO_DIR")
    if not given:
        os.environ["TRACKIO_DIR"] = str(folder)
        # One process writes, so that a network's file system is no reason for its other format.
        os.environ.setdefault("TRACKIO_STORAGE_MODE", "sqlite")
    try:
        import trackio
        from trackio.utils import TRACKIO_DIR
    finally:
        if not given:
            del os.environ["TRACKIO_DIR"]
    if not given and Path(TRACKIO_DIR).resolve() != folder:
        raise RuntimeError(
            f"this process keeps its trackio runs in {TRACKIO_DIR}, and cannot use {folder} as well"
        )
    return trackio, Path(TRACKIO_DIR)


def _delete(trackio: Any, name: str) -> None:
    with contextlib.suppress(ValueError):  # there is no database yet
        for run in trackio.Api().runs(PROJECT):
            if run.name == name:
                run.delete()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Trackio prints off the screen of the run."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _quiet_and_offline() -> Iterator[None]:
    """`_quiet`, and without the name of the user, for which Trackio would ask Hugging Face."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        with _quiet():
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
