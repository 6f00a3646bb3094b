"""The study's configurations on TPU slices, lowered for compilation ahead of time.

They are those of configs/paper/, which `rlif_jax.train` runs.
"""

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import jax
from flax import nnx
from jax.stages import Lowered

from configs.paper.machines import MACHINES
from rlif_jax.config import Config
from rlif_jax.config.load import read_config_file
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.optimizer import state_shapes
from rlif_jax.packing import Form
from rlif_jax.planning.ahead import mesh_of, packed_shapes, train_batch_shapes, with_sharding
from rlif_jax.sharding import param_shardings
from rlif_jax.step import make_stages
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config

from . import GOLDENS, ROOT

PAPER = ROOT / "configs/paper"
GIB_OF_CHIP = {"v5e": 15.75, "v6e": 31.25, "v5p": 95.74, "gpu": 79.6}
"""Memory of a chip that programs can use; of an H100, all that the driver shows."""


@dataclass(frozen=True)
class Setting:
    """A model of configs/paper/, by its folder, on one of its machines."""

    folder: str
    machine: str

    @functools.cached_property
    def config(self) -> Config:
        """The configuration of the folder's `tests_passed.py` for the machine."""
        config = read_config_file(PAPER / self.folder / "tests_passed.py")
        return MACHINES[self.folder][self.machine].applied(config)

    @property
    def model(self) -> str:
        """The name that the model is published under."""
        return self.config.model.source.rpartition("/")[2]

    @property
    def gib_of_chip(self) -> float:
        return GIB_OF_CHIP[self.machine.partition(":")[0]]

    @property
    def name(self) -> str:
        """As the table has it."""
        axes = " ".join(f"{axis}={n}" for axis, n in self.axes.items() if n > 1)
        response = self.config.sampling.max_new_tokens
        return f"{self.model} at {response // 1024}k on {self.machine} ({axes})"

    @property
    def axes(self) -> dict[str, int]:
        """The mesh, as `planning.ahead.mesh_of` takes it."""
        return dataclasses.asdict(self.config.mesh)


SETTINGS = tuple(Setting(folder, machine) for folder in MACHINES for machine in MACHINES[folder])
ON_TPU = tuple(setting for setting in SETTINGS if not setting.machine.startswith("gpu"))


def model_of(config: Config) -> ModelConfig:
    """A published model's shape, with the configuration's numerics and remat."""
    published = read_hf_config(LocalFiles(GOLDENS / "configs" / config.model.source.split("/")[1]))
    return dataclasses.replace(published, dtype=config.model.dtype, remat=config.model.remat)


def lowered(setting: Setting) -> Iterator[tuple[str, Form, Lowered]]:
    """The scorer and the update of a setting, with the form of its mini-batches."""
    cfg, mesh = setting.config, mesh_of(setting.machine, **setting.axes)
    model = model_of(cfg)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(model, jax.random.key(0))))
    params = with_sharding(params, param_shardings(params, mesh))
    with jax.set_mesh(mesh):
        stages = make_stages(cfg, graphdef, pad_id=0)
    # Outside the mesh: optax makes a counter, which needs a device that is there.
    state = state_shapes(params, stages.optimizer)
    with jax.set_mesh(mesh):
        packed = packed_shapes(stages.form)
        yield "score", stages.form, stages.score.at_sampling.lower(params, packed)
        batch = train_batch_shapes(stages.form, reference=cfg.loss.kl_coef > 0)
        yield "update", stages.form, stages.update.lower(state, batch)
