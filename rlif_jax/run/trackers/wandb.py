"""Weights & Biases, by its client: pip install 'rlif_jax[wandb]'."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlif_jax.run.trackers.tracked import COLUMNS, PROJECT, TrackedRun, table, write_again


class Wandb:
    """One run of Weights & Biases for all processes of a run; see `Tracker`.

    WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and WANDB_DIR are wandb's own. Without WANDB_MODE and
    without a stored API key the mode is offline: nothing is asked, nothing is sent, and
    `wandb sync FOLDER` sends the files later.

    Offline, a process that resumes writes the whole history again from metrics.jsonl and rollouts/,
    and then removes what earlier processes wrote: a folder that is synced replaces the run of its
    id (wandb/wandb#3841, #5865), so that each has to be complete, and the newest is right. Online,
    wandb takes no step back (its rewind is a private preview): a step that it has keeps its first
    values. A run that resumes repeats them, but for times, if it is on the same kind of devices.
    """

    def __init__(self, run: TrackedRun):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to wandb's makers
        import wandb

        mode = _mode(wandb)
        offline = mode in ("offline", "dryrun")
        parent = Path(os.environ.get("WANDB_DIR") or run.files("wandb").parent)
        parent.mkdir(parents=True, exist_ok=True)
        self._wandb, self._id = wandb, run.identity("wandb")
        # Silent, and without a network the end of the run shall not wait for one for ever.
        settings = wandb.Settings(console="off", silent=True, finish_timeout=120)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=run.name,
            id=self._id,
            resume="allow",
            dir=str(parent),
            mode=mode,
            config=dict(run.config),
            settings=settings,
        )
        self._first = self._run.starting_step
        folder = Path(self._run.settings.sync_dir)
        self.where = str(folder) if offline else str(self._run.url)
        write_again(self, run.history(self._first - 1))
        if offline:
            for earlier in folder.parent.glob(f"offline-run-*-{self._id}*"):
                if earlier.resolve() != folder.resolve():
                    shutil.rmtree(earlier, ignore_errors=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if step >= self._first:
            self._run.log(dict(values), step=step)

    def completions(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """See `Tracker`."""
        if step >= self._first:
            shown = self._wandb.Table(columns=list(COLUMNS), data=table(records))
            self._run.log({"completions": shown}, step=step)

    def artifact(self, path: Path) -> None:
        """See `Tracker`."""
        self._run.log_artifact(str(path), name=f"{path.stem}-{self._id}", type="report")

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


def _mode(wandb: Any) -> Any:
    """The mode that wandb is asked for, so that it does not ask for a key."""
    if chosen := os.environ.get("WANDB_MODE"):
        return "online" if chosen == "run" else chosen
    settings = wandb.setup().settings
    if settings.mode not in ("online", "run"):  # by `wandb offline`
        return settings.mode
    from requests.utils import get_netrc_auth  # where `wandb login` keeps keys; wandb needs it

    key = settings.api_key or settings.identity_token_file or get_netrc_auth(settings.base_url)
    return "online" if key else "offline"
