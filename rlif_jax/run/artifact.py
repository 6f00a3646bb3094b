"""Files that come after a run, such as its report, for the trackers that have the run."""

from collections.abc import Callable
from pathlib import Path

from rlif_jax.console.notice import ignore
from rlif_jax.run.folder import locked
from rlif_jax.run.log import last_step, tracked_run
from rlif_jax.run.provenance import recorded_config
from rlif_jax.run.trackers.opened import Trackers, check_installed
from rlif_jax.storage.folder import Folder, bucket_errors


def send_artifact(folder: Folder, path: Path, note: Callable[[str], None] = ignore) -> None:
    """Send a file to the trackers of a run that has ended, by the log.to of its config.json.

    `note` is told where they have the run, and of one that fails. Nothing happens where log.to has
    no tracker but TensorBoard, which takes no files.

    Raises:
        UserError: it is no run folder, a run trains in it, or a tracker is not installed.
    """
    config = recorded_config(folder)
    if names := [name for name in config.log.to if name != "tensorboard"]:
        check_installed(names)
        with locked(folder), bucket_errors(folder):
            trackers = Trackers(names, tracked_run(folder, config, last_step(folder)), note)
            trackers.artifact(path)
            trackers.close()
