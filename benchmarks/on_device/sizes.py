"""The models and sizes that are measured: a full form for accelerators, a short one for CPUs."""

import dataclasses
from dataclasses import dataclass

from rlif_jax.model.config import ModelConfig

R1_DISTILL_1_5B = ModelConfig(
    vocab_size=151936,
    embed=1536,
    ffn=8960,
    layers=28,
    heads=12,
    kv_heads=2,
    head_dim=128,
    family="qwen2",
    rope_theta=10000.0,
    tied=False,
    qkv_bias=True,
    max_positions=131072,
    remat="layer",
)
"""The shape of DeepSeek-R1-Distill-Qwen-1.5B; no token ends a completion, so lengths are known."""

QWEN_0_5B = ModelConfig(
    vocab_size=151936,
    embed=896,
    ffn=4864,
    layers=24,
    heads=14,
    kv_heads=2,
    head_dim=64,
    family="qwen2",
    rope_theta=1000000.0,
    tied=True,
    qkv_bias=True,
    max_positions=32768,
    remat="layer",
)
"""The shape of Qwen2.5-0.5B."""

SMOLLM2_135M = ModelConfig(
    vocab_size=49152,
    embed=576,
    ffn=1536,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    rope_theta=100000.0,
    rms_eps=1e-5,
    max_positions=8192,
    remat="layer",
)
"""The shape of SmolLM2-135M."""

TINY = ModelConfig(
    vocab_size=1000,
    embed=64,
    ffn=160,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    family="qwen2",
    qkv_bias=True,
    max_positions=1024,
    remat="layer",
)
"""A very small model of the same kind."""


@dataclass(frozen=True)
class StepSize:
    """A training step: N prompts of up to P tokens with G completions of C tokens each.

    A packed row has room for `in_row` of the longest sequences.
    """

    prompts: int
    samples: int
    prompt: int
    new: int
    in_row: int

    @property
    def rows(self) -> int:
        """Completions of the step (B)."""
        return self.prompts * self.samples


@dataclass(frozen=True)
class Sizes:
    """What is computed, and how often.

    `product` is the side of the square matrix product, `copy_mib` the MiB of the array that is
    copied. Kernels are checked with the heads and the vocabulary of `kernel_model`, with `tokens`
    tokens and with rows of `columns`; the training step with `check_model` and `check_step`.
    `models` are timed, with `step` and, for decoding alone, `many_slots` slots that draw
    `many_new` tokens each. `pace` is the time that parts take, relative to an H100's.
    """

    name: str
    product: int
    copy_mib: int
    kernel_model: ModelConfig
    tokens: int
    columns: int
    check_model: ModelConfig
    check_step: StepSize
    models: tuple[tuple[str, ModelConfig], ...]
    step: StepSize
    many_slots: int
    many_new: int
    repeats: int
    pace: float

    @property
    def many_step(self) -> StepSize:
        """Prompts and completions for `many_slots` slots."""
        prompts = self.many_slots // self.step.samples
        return dataclasses.replace(self.step, prompts=prompts, new=self.many_new)


FULL = Sizes(
    name="full",
    product=8192,
    copy_mib=1024,
    kernel_model=R1_DISTILL_1_5B,
    tokens=500,
    columns=1100,
    check_model=dataclasses.replace(QWEN_0_5B, layers=2),
    check_step=StepSize(prompts=2, samples=4, prompt=70, new=40, in_row=3),
    models=(("R1-Distill-1.5B", R1_DISTILL_1_5B), ("Qwen2.5-0.5B", QWEN_0_5B)),
    step=StepSize(prompts=8, samples=8, prompt=512, new=256, in_row=8),
    many_slots=512,
    many_new=128,
    repeats=5,
    pace=1.0,
)

SMALL = Sizes(
    name="small",
    product=1024,
    copy_mib=256,
    kernel_model=SMOLLM2_135M,
    tokens=130,
    columns=300,
    check_model=TINY,
    check_step=StepSize(prompts=2, samples=4, prompt=70, new=40, in_row=3),
    models=(("SmolLM2-135M", SMOLLM2_135M),),
    step=StepSize(prompts=2, samples=2, prompt=32, new=64, in_row=4),
    many_slots=32,
    many_new=64,
    repeats=2,
    pace=0.5,
)
