"""A run of random weights: the configuration, the stages of a real training, what they work on."""

import dataclasses
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from benchmarks.on_device.sizes import StepSize
from rlif_jax.batch import Params, Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Loss, Optim, Reward, Sampling
from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.sharding import param_shardings
from rlif_jax.step import Stages, make_stages


@dataclass(frozen=True)
class Run:
    """Stages as `rlif_jax.train` makes them, with parameters of random numbers.

    `size` are the numbers of a step; `params` are float32, in the layout of training.
    """

    cfg: Config
    model: ModelConfig
    size: StepSize
    stages: Stages
    graphdef: nnx.GraphDef
    params: Params


def config_of(size: StepSize, slots: int, judged: bool, optim: Optim | None = None) -> Config:
    """The configuration of a step of this size, rewarded by tests, or by certainty without a judge.

    Prompts are not shared: where they are, on CPUs as a rule, fewer tokens are computed than are
    trained on.
    """
    longest = size.prompt + size.new - 1
    return Config(
        data=Data(prompts_per_step=size.prompts, max_prompt_tokens=size.prompt),
        sampling=Sampling(
            samples_per_prompt=size.samples, max_new_tokens=size.new, slots=slots, temperature=1.0
        ),
        reward=Reward(terms=(("tests_passed" if judged else "self_certainty", 1.0),)),
        loss=Loss(tokens_per_micro_batch=size.in_row * longest, shared_prompts=False),
        optim=optim or Optim(),
    )


def make_run(
    model: ModelConfig,
    size: StepSize,
    dtype: str,
    *,
    slots: int,
    judged: bool,
    scale: float = 0.02,
    optim: Optim | None = None,
) -> Run:
    """A run on the mesh of `jax.set_mesh`; matrices are normal with deviation `scale`."""
    cfg, model = config_of(size, slots, judged, optim), dataclasses.replace(model, dtype=dtype)
    graphdef, params = nnx.split(Decoder.init(model, jax.random.key(0), scale))
    # In the layout of training from the start, or stages compile again behind the first update.
    params = jax.device_put(params, param_shardings(params, jax.sharding.get_mesh()))
    stages = make_stages(cfg, graphdef, pad_id=0)
    return Run(cfg, model, size, stages, graphdef, jax.block_until_ready(params))


def resized(run: Run, size: StepSize, slots: int) -> Run:
    """A run of other sizes with the same parameters; its stages compile for themselves."""
    cfg = config_of(size, slots, judged=True)
    stages = make_stages(cfg, run.graphdef, pad_id=0)
    return dataclasses.replace(run, cfg=cfg, size=size, stages=stages)


def made_rollout(run: Run, seed: int = 0) -> Rollout:
    """A rollout of random tokens in which every prompt and completion is as long as it can be."""
    size, rng = run.size, np.random.default_rng(seed)
    B, C = size.rows, size.new

    def ids(*shape: int) -> np.ndarray:
        return rng.integers(0, run.model.reachable, shape).astype(np.int32)

    numbers = [np.zeros((B, C), np.float32) for _ in TokenStats.__dataclass_fields__]
    return Rollout(
        prompts=Prompts(ids(size.prompts, size.prompt), np.ones((size.prompts, size.prompt), bool)),
        tokens=ids(B, C),
        mask=np.ones((B, C), bool),
        stats=TokenStats(*numbers),
        truncated=np.ones(B, bool),
        length=np.full(B, C, np.int32),
    )
