"""The paper's settings on TPU slices, lowered for compilation ahead of time."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
from flax import nnx
from jax.stages import Lowered

from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.optimizer import make_optimizer, state_shapes
from rlif_jax.packing import Form
from rlif_jax.planning.ahead import mesh_of, packed_shapes, train_batch_shapes, with_sharding
from rlif_jax.sharding import param_shardings
from rlif_jax.step import make_stages
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config

CONFIGS = Path(__file__).parents[1] / "goldens/configs"
GIB_OF_CHIP = {"v5e": 15.75, "v5p": 95.74}


@dataclass(frozen=True)
class Setting:
    """A model of the paper, its longest response, and a slice with the axes of its mesh."""

    model: str
    response: int
    topology: str
    axes: dict[str, int]

    @property
    def name(self) -> str:
        """As the table has it."""
        axes = " ".join(f"{axis}={n}" for axis, n in self.axes.items())
        return f"{self.model} at {self.response // 1024}k on {self.topology} ({axes})"


R1, QWEN3, CODER = "DeepSeek-R1-Distill-Qwen-1.5B", "Qwen3-4B", "Qwen2.5-Coder-7B-Instruct"
SETTINGS = (
    Setting(R1, 8192, "v5e:4x4", {"fsdp": 16}),
    Setting(R1, 16384, "v5e:4x4", {"fsdp": 8, "context": 2}),
    Setting(QWEN3, 16384, "v5e:8x8", {"fsdp": 32, "context": 2}),
    Setting(CODER, 8192, "v5e:8x8", {"fsdp": 32, "tensor": 2}),
    Setting(R1, 8192, "v5p:2x2x2", {"fsdp": 8}),
    Setting(R1, 16384, "v5p:2x2x2", {"fsdp": 8}),
    Setting(QWEN3, 16384, "v5p:2x2x4", {"fsdp": 16}),
    Setting(CODER, 8192, "v5p:2x2x4", {"fsdp": 16}),
)


def config_of(setting: Setting) -> Config:
    """The paper's batch and lengths: 64 prompts of 2,048 tokens, 16 responses, two mini-batches."""
    return Config(
        data=Data(prompts_per_step=64, max_prompt_tokens=2048),
        sampling=Sampling(samples_per_prompt=16, max_new_tokens=setting.response, cache_gib=1),
        loss=Loss(mini_batches=2),
    )


def model_of(name: str) -> ModelConfig:
    """A published model's shape, in bfloat16, with layers recomputed in the backward pass."""
    published = read_hf_config(LocalFiles(CONFIGS / name))
    return dataclasses.replace(published, dtype="bfloat16", remat="layer")


def lowered(setting: Setting) -> Iterator[tuple[str, Form, Lowered]]:
    """The scorer and the update of a setting, with the form of its mini-batches."""
    cfg, mesh = config_of(setting), mesh_of(setting.topology, **setting.axes)
    model = model_of(setting.model)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(model, jax.random.key(0))))
    params = with_sharding(params, param_shardings(params, mesh))
    # Outside the mesh: optax makes a counter, which needs a device that is there.
    state = state_shapes(params, make_optimizer(cfg.optim, cfg.loss.mini_batches))
    with jax.set_mesh(mesh):
        stages = make_stages(cfg, graphdef, pad_id=0)
        packed = packed_shapes(stages.form)
        yield "score", stages.form, stages.score.at_sampling.lower(params, packed)
        batch = train_batch_shapes(stages.form, reference=False)
        yield "update", stages.form, stages.update.lower(state, batch)
