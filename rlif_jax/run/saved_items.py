"""The parts of a training state as Orbax saves them, each in an item of its own."""

from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rlif_jax.batch import Params, TrainState
from rlif_jax.model.lora import divided
from rlif_jax.weights.orbax_folder import ADAPTERS, FOLDER

REST = "rest"
"""The item beside the parameters."""


def items(params: Params) -> dict[str, Params]:
    """The parameters by the item that they are saved in; the first one is trained."""
    moving, frozen = divided(params)
    return {ADAPTERS: moving, FOLDER: frozen} if frozen else {FOLDER: moving}


def rest(state: TrainState, key_data: Any) -> dict[str, Any]:
    """What is saved beside the parameters: leaves by their path, which no class depends on.

    The key is NumPy's: several processes cannot save an array that each of them has for itself.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    moments = {f"{i:04d}{jax.tree_util.keystr(p)}": leaf for i, (p, leaf) in enumerate(leaves)}
    return {
        "step": state.step,
        "opt_state": moments,
        "entropy_coef": state.entropy_coef,
        "key": np.array(key_data),
    }


def handlers() -> ocp.handlers.CheckpointHandlerRegistry:
    """How the items are written: uncompressed.

    Compression would save 8 to 17% of the bytes, for most of a save's processor time.
    """
    arrays = ocp.PyTreeCheckpointHandler(use_compression=False)
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in (FOLDER, ADAPTERS, REST):
        for args in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
            registry.add(item, args, arrays)
    return registry


def restored_as(tree: Any) -> ocp.args.PyTreeRestore:
    """Restore an item like this tree of shapes or arrays; NumPy arrays come back as such."""

    def one(x: Any) -> Any:
        return x if isinstance(x, np.ndarray) else ocp.utils.to_shape_dtype_struct(x)

    wanted = jax.tree.map(one, tree)
    how = ocp.checkpoint_utils.construct_restore_args(wanted)
    return ocp.args.PyTreeRestore(item=wanted, restore_args=how)
