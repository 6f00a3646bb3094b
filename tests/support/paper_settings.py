"""The study's configurations on the machines that they name.

They are those of configs/paper/, which `rlif_jax.train` runs.
"""

import dataclasses
import functools
from dataclasses import dataclass

from configs.paper.machines import MACHINES
from rlif_jax.config import Config
from rlif_jax.config.load import read_config_file
from rlif_jax.model.config import ModelConfig
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.search import mesh_over
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.weights.model_shape import model_shape

from . import GOLDENS, ROOT

PAPER = ROOT / "configs/paper"


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
        chip = Slice.parse(self.machine).chip
        assert chip is not None
        return chip.memory_gib

    @property
    def name(self) -> str:
        """As the table has it."""
        axes = " ".join(f"{axis}={n}" for axis, n in self.axes.items() if n > 1)
        response = self.config.sampling.max_new_tokens
        return f"{self.model} at {response // 1024}k on {self.machine} ({axes})"

    @property
    def settings(self) -> dict[str, int | float | str]:
        """What the machine asks for, as flags of train have it."""
        return MACHINES[self.folder][self.machine].settings()

    @property
    def axes(self) -> dict[str, int]:
        """Devices along each axis of the mesh."""
        return dataclasses.asdict(self.config.mesh)

    def ahead(self) -> StagesAhead:
        """The stages of the configuration on its machine."""
        slice_, cfg = Slice.parse(self.machine), self.config
        return StagesAhead(cfg, published(cfg), mesh_over(slice_, cfg.mesh), self.gib_of_chip)


SETTINGS = tuple(Setting(folder, machine) for folder in MACHINES for machine in MACHINES[folder])
ON_TPU = tuple(setting for setting in SETTINGS if not setting.machine.startswith("gpu"))


def published(config: Config) -> ModelConfig:
    """The shape of a configuration's model, by its published config.json."""
    return model_shape(str(GOLDENS / "configs" / config.model.source.split("/")[1]))
