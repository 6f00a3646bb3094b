"""Parameters in an Orbax folder: what training saves and what `convert --format orbax` writes.

They are stored in their layout in memory, by their declared names, so that each host of a pod reads
its own shards in parallel and nothing is transposed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from rlif_jax.console.notice import Notice
from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig, adapter_specs, param_specs
from rlif_jax.weights.layout import to_file

FOLDER = "params"
"""Holds all parameters, adapters excepted."""
ADAPTERS = "adapters"
"""Holds the adapters of a checkpoint, beside the frozen parameters or without them."""


class OrbaxWeights:
    """The parameters in a folder that Orbax wrote; see `weights.Weights`.

    They are all that `cfg` declares, or in a folder named `ADAPTERS` its adapters.

    Raises:
        UserError: the folder is damaged, or holds other parameters than the configuration's.
    """

    unused = ()

    def __init__(self, folder: str, cfg: ModelConfig):
        self._folder = epath.Path(folder if "://" in folder else Path(folder).absolute())
        self._cfg, self._last = cfg, ("", np.empty(0))
        handler = ocp.PyTreeCheckpointHandler()
        self._checkpointer = ocp.Checkpointer(handler)
        # The checkpointer itself would warn that one item is not a complete checkpoint.
        stored = self._tried(lambda: handler.metadata(self._folder).tree)
        specs = (adapter_specs if self._folder.name == ADAPTERS else param_specs)(cfg)
        self._specs = specs
        problems = [f"{name} is missing" for name in specs.keys() - stored.keys()]
        problems += [f"{name} belongs to no parameter" for name in stored.keys() - specs.keys()]
        problems += [
            f"{name} has shape {tuple(stored[name].shape)}, not {specs[name].shape}"
            for name in specs.keys() & stored.keys()
            if tuple(stored[name].shape) != specs[name].shape
        ]
        if problems:
            raise UserError(
                f"the parameters in {folder} do not fit the config.json beside them: "
                f"{'; '.join(sorted(problems)[:8])}"
            )
        self._dtypes = {name: np.dtype(meta.dtype) for name, meta in stored.items()}

    @property
    def names(self) -> list[str]:
        """The parameters that the folder holds."""
        return list(self._specs)

    def arrays(
        self, shardings: Mapping[str, jax.sharding.Sharding], notice: Notice | None
    ) -> dict[str, jax.Array]:
        """See `weights.Weights`."""
        specs = self._specs
        total = 4 * sum(int(np.prod(spec.shape)) for spec in specs.values())
        if notice is not None:
            notice("loading the parameters", 0, total)
        shapes = {
            name: jax.ShapeDtypeStruct(spec.shape, jnp.float32, sharding=shardings[name])
            for name, spec in specs.items()
        }
        restored = self._restore(shapes)
        if notice is not None:
            notice("loading the parameters", total, total)
        return restored

    def whole(self, name: str, dtype: np.dtype) -> np.ndarray:
        """See `weights.Weights`."""
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shape = self._specs[name].shape
        wanted = jax.ShapeDtypeStruct(shape, self._dtypes[name], sharding=here)
        return np.asarray(self._restore({name: wanted})[name]).astype(dtype, copy=False)

    def stored(self, name: str, layer: int) -> np.ndarray:
        """See `weights.Weights`."""
        if self._last[0] != name:  # layers are requested in order: restore them together
            self._last = (name, self.whole(name, self._dtypes[name]))
        value, spec = self._last[1], self._specs[name]
        if spec.stacked:
            return to_file(name, value[layer])
        return value[: self._cfg.vocab_size] if spec.axes[0] == "vocab" else value

    def fingerprint(self) -> str:
        """See `weights.Weights`: of the list of what was written, anew for each time."""
        written = self._tried(lambda: (self._folder / "manifest.ocdbt").read_bytes())
        return hashlib.sha256(written).hexdigest()[:16]

    def dtype(self, name: str, layer: int) -> np.dtype:
        """See `weights.Weights`."""
        return self._dtypes[name]

    def _restore(self, shapes: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        args = ocp.args.PyTreeRestore(
            item=shapes,
            restore_args=ocp.checkpoint_utils.construct_restore_args(shapes),
            partial_restore=True,
        )
        return self._tried(lambda: self._checkpointer.restore(self._folder, args=args))

    def _tried(self, work) -> Any:
        try:
            return work()
        except ImportError as error:
            raise UserError(
                f"reading Orbax parameters from {self._folder} needs the package gcsfs ({error}): "
                "pip install 'rlif_jax[gcs]', or copy the folder to this machine"
            ) from error
        except Exception as error:  # see reason_of
            raise UserError(
                f"the parameters in {self._folder} cannot be read ({reason_of(error)}); the "
                "checkpoint is damaged or incomplete: fetch or convert it again, or give an older "
                "one"
            ) from error


def reason_of(error: Exception) -> str:
    """Why Orbax failed, in one line: the reason is the cause of the exception that it raises."""
    return " ".join(str(error.__cause__ or error).split())[:300]
