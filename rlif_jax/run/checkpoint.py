"""Saved training states: parameters, optimiser, step, key and the place in the data.

The parameters are an item of their own, by their declared names, so that a checkpoint is a model
source as well. Adapters are another one: the frozen parameters beside them are those of the model
that the run started from, and need not be saved.
"""

import dataclasses
import errno
import functools
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from rlif_jax.batch import Params, TrainState
from rlif_jax.errors import UserError
from rlif_jax.model.lora import divided, with_trained
from rlif_jax.weights.orbax_folder import ADAPTERS, FOLDER, reason_of
from rlif_jax.weights.parameters import filled, named


class Checkpoints:
    """The checkpoints folder of a run, where frozen parameters are saved unless `adapters_only`.

    A checkpoint appears under its final name only when it is whole, so a run that is killed while
    saving resumes from the one before.
    """

    def __init__(self, folder: Path, keep: int, adapters_only: bool = False):
        self._folder = Path(folder).absolute()
        self._keep, self._adapters_only = keep, adapters_only

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        # Made when first needed, so that a run refused early leaves no folder behind.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep, create=True, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def latest(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step() if self._folder.is_dir() else None

    def save(self, step: int, state: TrainState, key: jax.Array, data: dict[str, Any]) -> None:
        """Write step `step`; returns when it is on disk.

        Raises:
            UserError: the folder cannot be written, for example because the disk is full.
        """
        params = _items(state.params)
        if self._adapters_only:
            del params[FOLDER]
        args = ocp.args.Composite(
            **{item: ocp.args.StandardSave(named(part)) for item, part in params.items()},
            rest=ocp.args.StandardSave(_rest(state, key)),
            data=ocp.args.JsonSave(data),
        )
        try:
            self._manager.save(step, args=args)
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise UserError(_cannot_write(self._folder, step, error)) from error

    def restore(self, state: TrainState) -> tuple[TrainState, jax.Array, dict[str, Any]]:
        """The newest checkpoint as (state, key, data), laid out like `state`.

        `state` may hold shapes with shardings in place of arrays. Frozen parameters are not read:
        they come back as they are in `state`.

        Raises:
            UserError: the checkpoint is damaged, or was written by another model or optimiser.
        """
        step, (item, moving) = self.latest(), next(iter(_items(state.params).items()))
        params, rest = jax.tree.map(
            ocp.utils.to_shape_dtype_struct, (named(moving), _rest(state, jax.random.key(0)))
        )
        args = ocp.args.Composite(
            **{item: ocp.args.StandardRestore(params)},
            rest=ocp.args.StandardRestore(rest),
            data=ocp.args.JsonRestore(),
        )
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # see reason_of
            raise UserError(
                f"checkpoint {step} in {self._folder} does not fit this run or is damaged: "
                f"{reason_of(error)}. Remove the folder {self._folder / str(step)} to resume from "
                "the checkpoint before it, or choose another folder with --run-dir."
            ) from error
        rest = restored["rest"]
        opt_state = jax.tree.unflatten(
            jax.tree.structure(state.opt_state), jax.tree.leaves(rest["opt_state"])
        )
        state = dataclasses.replace(
            state,
            step=rest["step"],
            params=with_trained(state.params, filled(moving, restored[item])),
            opt_state=opt_state,
            entropy_coef=rest["entropy_coef"],
        )
        return state, jax.random.wrap_key_data(rest["key"]), restored["data"]

    def close(self) -> None:
        """Release what saving and restoring have opened."""
        if "_manager" in self.__dict__:
            self._manager.close()


def _items(params: Params) -> dict[str, Params]:
    """The parameters by the item that they are saved in; the first one is trained."""
    moving, frozen = divided(params)
    return {ADAPTERS: moving, FOLDER: frozen} if frozen else {FOLDER: moving}


def _rest(state: TrainState, key: jax.Array) -> dict[str, Any]:
    """What is saved beside the parameters: leaves by their path, which no class depends on."""
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    moments = {f"{i:04d}{jax.tree_util.keystr(p)}": leaf for i, (p, leaf) in enumerate(leaves)}
    return {
        "step": state.step,
        "opt_state": moments,
        "entropy_coef": state.entropy_coef,
        "key": jax.random.key_data(key),
    }


def _cannot_write(folder: Path, step: int, error: Exception) -> str:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    reason = "the disk is full" if full else f"{type(error).__name__}: {error}"
    return (
        f"checkpoint of step {step} could not be written to {folder}: {reason}. Earlier ones "
        "are untouched. Free some space (or start with --run-dir on another disk) and run the same "
        "command again: it resumes from the newest checkpoint."
    )
