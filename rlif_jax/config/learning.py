"""The sections of a run that say what is learned: the reward, the loss, the optimiser."""

from dataclasses import dataclass
from typing import Annotated, Literal

from rlif_jax.config.ranges import FINITE, at_least, between, positive

Step = Annotated[int, at_least(1)]
Weight = Annotated[float, FINITE]
Ramp = tuple[str, Step, Step, Weight]
VoteInputs = Literal["problem", "examples", "fuzz", "model"]


@dataclass(frozen=True)
class Reward:
    """What is rewarded: a weighted sum of named terms."""

    terms: tuple[tuple[str, Weight], ...] = (("tests_passed", 1.0),)
    """Pairs of a reward's name and its weight."""
    ramps: tuple[Ramp, ...] = ()
    """Weights that change: a term, the last step with its weight of terms,
    the first step with another weight, and that weight; linear in between."""
    combine: Literal["sum", "normalise_then_sum"] = "sum"
    """sum: weigh and add the terms. With loss.advantage=grpo the sum is normalised,
    so that the smallest term has full size where the others are equal;
    normalise_then_sum: normalise each term in its group first,
    so that weights mean the same in every group,
    with loss.advantage=none or dr_grpo."""
    reward_temperature: Annotated[float, positive()] | None = None
    """Temperature at which certainty terms read the logits; None: that of sampling."""
    over: str = "response"
    """What certainty terms read. response: all of it;
    code: the program; thinking: what comes before </think>;
    tail(TOKENS): so many at the end;
    lowest_window(TOKENS): the so many neighbours of least certainty."""
    aggregate: Literal["mean", "sum", "min", "quantile"] = "mean"
    """What becomes of the certainty of the tokens that are read;
    terms called ..._sum always add up."""
    quantile: Annotated[float, between(0, 1)] | None = None
    """Of aggregate=quantile: 0 is the least certain token's value, 1 the most certain one's."""
    vote_inputs: VoteInputs = "problem"
    """Inputs on which programs vote. problem: those of its tests,
    also of hidden ones, so that the vote is not free of labels; examples: of its public tests;
    fuzz: these, and fuzz_inputs more that are made from them;
    model: these, and generated_tests more that the policy writes in each step,
    with the outputs that it expects; it gives as many answers as completions."""
    fuzz_inputs: Annotated[int, at_least(1)] = 8
    """Inputs that vote_inputs=fuzz makes for each problem."""
    generated_tests: Annotated[int, at_least(1)] = 8
    """Tests that vote_inputs=model has for each problem at most:
    those that most answers propose, examples not counted."""
    vote_entropy_max: Annotated[float, positive()] | None = None
    """behaviour_entropy rewards groups whose votes have less entropy than this, in nats;
    None: all."""
    teacher_pool: Literal["teacher", "joint"] = "teacher"
    """Whose programs vote in teacher_vote. teacher: those of the teacher alone;
    joint: those of the policy as well."""
    similarity: Literal["tokens", "syntax"] = "tokens"
    """How evol compares two programs. tokens: the Python tokens that they share;
    syntax: the pairs of a syntax node and its parent, whatever names and values there are."""
    confidence: Literal["sequence", "stated"] = "sequence"
    """The confidence of brier. sequence: the geometric mean of the response's probabilities;
    stated: the number that the response gives for it, with data.ask_confidence."""
    short_length_tokens: Annotated[int, at_least(0)] = 0
    """The penalty applies to completions shorter than this many tokens,
    with certainty terms only; 0: to none."""
    short_length_penalty: Annotated[float, at_least(0)] = 0.0
    """Subtracted once from the reward of a completion
    shorter than short_length_tokens."""
    overlong_buffer_tokens: Annotated[int, at_least(0)] = 0
    """The last tokens before sampling.max_new_tokens that cost a completion
    a part of overlong_penalty each (DAPO's soft overlong punishment); 0: none."""
    overlong_penalty: Annotated[float, at_least(0)] = 0.0
    """Subtracted from the reward of a completion of sampling.max_new_tokens."""
    stats_from: Literal["scorer", "sampler"] = "scorer"
    """scorer: statistics recomputed in the trainer's numerics;
    sampler: those of sampling, which saves a forward pass."""

    @property
    def reads_examples(self) -> bool:
        """Whether the inputs of votes come from the examples of a problem, its public tests."""
        return self.vote_inputs in ("examples", "fuzz")

    @property
    def made_inputs(self) -> bool:
        """Whether the inputs of votes were made: one need not be an input of the problem."""
        return self.vote_inputs in ("fuzz", "model")


@dataclass(frozen=True)
class Gates:
    """What a step does not learn from, whatever its rewards: each gate is off by default.

    The advantages of a group that fails a gate are 0, and data.max_refills replaces it as it does
    groups whose rewards are equal.
    """

    min_compiling: Annotated[float, between(0, 1)] = 0.0
    """Least share of a group's completions with a program that compiles; 0: any."""
    min_behaviours: Annotated[int, at_least(0)] = 0
    """Fewest classes of equal programs among those of a group that vote,
    so that the inputs tell programs apart; 0 or 1: any."""
    vote_entropy: tuple[Annotated[float, at_least(0)], Annotated[float, at_least(0)]] | None = None
    """Least and most entropy of a group's votes in nats, both included; None: any.
    Below, the group agrees already; above, its majority is not to be believed (EMPO)."""
    deterministic: bool = False
    """Run each program twice on the inputs of votes: one that fails once,
    or answers otherwise the second time, does not vote. Its tests count as ever."""
    low_entropy_iqr: Annotated[float, at_least(0)] | None = None
    """Leave completions out of the loss whose mean token entropy is so many interquartile ranges
    below the first quartile of the step (M-GRPO); 1.5 is usual. None: none.
    Their rewards still count in their groups."""

    @property
    def of_groups(self) -> bool:
        """Whether a group can fail."""
        return self.min_compiling > 0 or self.min_behaviours > 1 or self.vote_entropy is not None

    @property
    def of_votes(self) -> bool:
        """Whether the answers of programs to all inputs of votes are read."""
        return self.min_behaviours > 1 or self.vote_entropy is not None or self.deterministic

    @property
    def of_programs(self) -> bool:
        """Whether programs have to be run."""
        return self.of_groups or self.of_votes


@dataclass(frozen=True)
class Loss:
    """The policy-gradient loss."""

    variant: Literal["grpo", "gspo", "cispo", "clip_cov", "kl_cov"] = "grpo"
    """grpo: clipped ratio of each token, with the dual clip;
    gspo: clipped ratio of the completion, with sequence_mean in its paper;
    cispo: log-probability times a clipped ratio without gradient;
    clip_cov: as grpo without dual clip, and some tokens of high covariance left out;
    kl_cov: ratio without clip, and a KL penalty on the tokens of highest covariance."""
    advantage: Literal["grpo", "dr_grpo", "none"] = "grpo"
    """grpo: (r - group mean) / group std;
    dr_grpo: r - group mean;
    none: r itself."""
    std_floor: Annotated[float, at_least(0)] = 1e-6
    """A group gets zero advantage unless its reward std exceeds this share
    of its largest |reward|, so that rounding noise is not amplified.
    In normalise_then_sum this holds for each term."""
    clip_low: Annotated[float, between(0, 1)] = 0.2
    """The ratio is clipped below at 1 - clip_low; 1: not at all."""
    clip_high: Annotated[float, at_least(0)] = 0.2
    """The ratio is clipped above at 1 + clip_high; 0.28 in DAPO."""
    dual_clip: Annotated[float, FINITE] | None = 3.0
    """Bound on the ratio of negative advantages (dual clip), of grpo alone; None: no bound."""
    cov_fraction: Annotated[float, between(0, 1, open_low=True)] = 2e-4
    """Share of a mini-batch's tokens that clip_cov and kl_cov select
    by the covariance of log-probability and advantage."""
    clip_cov_range: tuple[Annotated[float, FINITE], Annotated[float, FINITE]] = (1.0, 5.0)
    """clip_cov selects at random among tokens of a covariance between these two."""
    kl_cov_coef: Annotated[float, positive()] = 1.0
    """Weight of kl_cov's penalty |log ratio| of selected tokens."""
    sampler_correction_cap: Annotated[float, at_least(1)] | None = None
    """Weigh each token by the trainer's probability over the sampler's, at most this
    (truncated importance sampling; 2 is usual); None: no weights."""
    overlong_filter: bool = False
    """Leave truncated completions out of the loss;
    their rewards still count in their groups."""
    aggregation: Literal["token_mean", "sequence_mean", "dr_grpo"] = "token_mean"
    """token_mean: sum / tokens;
    sequence_mean: mean of the rows' means;
    dr_grpo: sum / (B * C max)."""
    kl_coef: Annotated[float, at_least(0)] = 0.0
    """Weight of the KL penalty to kl_anchor; 0 keeps no reference in memory."""
    kl_anchor: Literal["start", "average"] = "start"
    """start: the starting model;
    average: the average of optim.average_decay, as it is before the step."""
    reference_on_host: bool = False
    """Keep the starting model of the KL penalty in the host's memory while it is not scoring:
    a device has it only then, and a step takes as long as bringing it there longer."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """k1: log ratio, with the gradient of k2;
    k2: its square over 2;
    k3: exp(-log ratio) - 1 + log ratio, at most 10."""
    entropy_coef: Annotated[float, FINITE] = 0.0
    """Weight of the entropy bonus; with entropy_target its first weight."""
    entropy_target: Annotated[float, positive()] | None = None
    """Entropy of a token, in nats, below which the weight of the bonus rises each step,
    and above which it falls and the bonus rests; None: the weight stays."""
    entropy_step: Annotated[float, positive()] = 0.005
    """How far the weight of the bonus moves in a training step with entropy_target."""
    epochs: Annotated[int, at_least(1)] = 1
    """Passes over the sampled batch (E)."""
    mini_batches: Annotated[int, at_least(1)] = 1
    """Optimiser updates per pass; each sees whole groups."""
    tokens_per_micro_batch: Annotated[int, at_least(0)] = 0
    """Tokens that each row shard (mesh.data * mesh.fsdp) trains on at a time,
    prompts included: what memory grows with.
    Sequences of unequal length are packed into rows of this width;
    0: 1,024, or the longest prompt and completion where these are longer;
    with shared prompts on a CPU no more than a prompt and all its samples."""
    shared_prompts: bool | None = None
    """Compute a prompt once for all its completions in a row;
    None: on CPUs, where it pays."""


@dataclass(frozen=True)
class Optim:
    """AdamW."""

    learning_rate: Annotated[float, at_least(0)] = 1e-6
    """Learning rate after warm-up, constant from there on."""
    warmup_steps: Annotated[int, at_least(0)] = 10
    """Training steps over which the learning rate rises linearly.
    All loss.epochs * loss.mini_batches updates of a step have the same."""
    weight_decay: Annotated[float, at_least(0)] = 0.1
    """Decoupled weight decay; norms and biases are exempt."""
    b1: Annotated[float, between(0, 1, open_high=True)] = 0.9
    """Decay of the first moment."""
    b2: Annotated[float, between(0, 1, open_high=True)] = 0.999
    """Decay of the second moment."""
    eps: Annotated[float, positive()] = 1e-8
    """Added to the root of the second moment."""
    first_moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which the first moment is kept: bfloat16 saves 2 of 16 bytes a parameter.
    The second moment stays float32, for bfloat16 would round its small changes away."""
    clip_norm: Annotated[float, positive(infinite=True)] = 1.0
    """Gradients of a larger global norm are scaled down to it; inf: never."""
    average_decay: Annotated[float, between(0, 1, open_low=True, open_high=True)] | None = None
    """Share of its former self that the average of the trained parameters keeps in a step,
    0.99 to 0.999 as a rule; it takes 4 bytes a parameter.
    loss.kl_anchor=average and the reward teacher_vote read it; None: no average is kept."""
