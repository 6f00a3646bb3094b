"""Where a new run starts: with the parameters of model.source, or with those of another run."""

import dataclasses
from dataclasses import dataclass

import optax

from rlif_jax.batch import Params, TrainState
from rlif_jax.config import Config
from rlif_jax.errors import UserError
from rlif_jax.optimizer import init_state, state_shapes
from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
from rlif_jax.storage.folder import Folder, bucket_errors, folder_at, is_folder


@dataclass(frozen=True)
class StartPoint:
    """The checkpoint of another run at `step` that init_from names; None: model.source.

    `kept` says whether its optimiser is taken as well.
    """

    name: str
    checkpoints: Checkpoints | None
    step: int
    kept: bool

    @property
    def source(self) -> str:
        """What the parameters come from, exactly; empty: model.source."""
        return f"{self.name}@{self.step}" if self.checkpoints else ""


def start_point(cfg: Config) -> StartPoint:
    """Where a configuration's run starts, found before devices are used.

    Raises:
        UserError: init_from names no run folder with a checkpoint, or a step that it has not saved.
    """
    kept = cfg.init_optimizer == "kept"
    if not cfg.init_from:
        return StartPoint("", None, 0, kept)
    name, _, step = cfg.init_from.rpartition("@")
    with bucket_errors(cfg.init_from):
        if not (name and step.isdigit()) or is_folder(_checkpoints(cfg.init_from)):
            name, step = cfg.init_from, ""  # the folder's own name may have an @
        folder = _checkpoints(name)
        if not is_folder(folder):
            raise UserError(
                f"init_from={cfg.init_from!r} is not a run folder: {folder} is no folder. Give the "
                "folder of a run that has saved a checkpoint, RUN for its newest one or RUN@STEP."
            )
        checkpoints = Checkpoints(folder, keep=1, read_only=True)
        try:
            saved = checkpoints.steps()
        except DamagedCheckpoint as error:  # of another run, which is left as it is
            raise UserError(f"init_from={cfg.init_from!r} cannot start a run: {error}") from error
    if not saved or (step and int(step) not in saved):
        has = f"those of {', '.join(map(str, saved))}" if saved else "none yet"
        raise UserError(
            f"init_from={cfg.init_from!r} names a checkpoint that is not there: {folder} has "
            f"{has}. Give RUN@STEP with one of them, or RUN for the newest."
        )
    return StartPoint(name, checkpoints, int(step or saved[-1]), kept)


def initial_state(
    cfg: Config, start: StartPoint, params: Params, optimizer: optax.GradientTransformation
) -> TrainState:
    """Step 0 of a run, laid out like `params`, those of model.source or their shapes.

    The state keeps the `params` that it does not take from another run: all of them, or the frozen
    ones beside adapters. A kept optimiser has its moments, its count of updates, so that no second
    warm-up follows, and the weight of an entropy bonus that is steered.

    Raises:
        UserError: the checkpoint is damaged, or was written by another model or, where it is kept,
            by another optimiser.
    """
    if start.checkpoints is None:
        return init_state(params, optimizer, cfg.loss.entropy_coef)
    try:
        if start.kept:
            shapes = state_shapes(params, optimizer)
            state, _, _ = start.checkpoints.restore(shapes, start.step)
            return dataclasses.replace(state, step=state.step * 0)
        params = start.checkpoints.restore_params(params, start.step)
        return init_state(params, optimizer, cfg.loss.entropy_coef)
    except UserError as error:
        raise UserError(
            f"init_from={cfg.init_from!r} cannot start a run of model.source={cfg.model.source!r}: "
            f"{error}"
        ) from error
    finally:
        start.checkpoints.close()


def _checkpoints(run: str) -> Folder:
    return folder_at(run).expanduser() / "checkpoints"
