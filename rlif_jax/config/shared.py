"""What training and evaluation have in common, declared once: both inherit these sections."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from rlif_jax.config.ranges import at_least, between

PromptStyle = Literal[
    "chat", "livecodebench", "livecodebench_qwen", "livecodebench_qwq", "livecodebench_deepseek_r1"
]
Thinking = Literal["template", "on", "off"]
CacheDtype = Literal["", "float32", "bfloat16"]
WeightsDtype = Literal["", "bfloat16", "int8"]
Remat = Literal["none", "layer", "attention", "offload"]


@dataclass(frozen=True)
class Section:
    """Fields that belong together."""

    @classmethod
    def of(cls, section: Self) -> Self:
        """These fields alone, of a section that has them and more."""
        names = [one.name for one in dataclasses.fields(cls)]
        return cls(**{name: getattr(section, name) for name in names})


@dataclass(frozen=True)
class Precision(Section):
    """The numbers that a model computes in."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matrix products;
    parameters and reductions stay float32."""


@dataclass(frozen=True)
class PromptOptions(Section):
    """How a problem becomes a prompt."""

    prompt_style: PromptStyle = "chat"
    """chat: a short request in the model's chat template;
    livecodebench: LiveCodeBench's messages in that template;
    livecodebench_...: LiveCodeBench's full prompt for Qwen2(.5), QwQ, R1 distills."""
    system_prompt: str = ""
    """System message, in place of any other;
    empty: LiveCodeBench's own in its styles, else the chat template's own."""
    thinking: Thinking = "template"
    """Whether the model thinks before it answers.
    template: as the style and the chat template have it;
    on, off: through the chat template's enable_thinking if it has one,
    else the prompt ends in an open <think> or in an empty thought."""
    ask_confidence: bool = False
    """Ask for the probability that the program is correct, at the end of the answer
    between <confidence> and </confidence>; in the prompt style chat alone."""


@dataclass(frozen=True)
class ProblemOptions(PromptOptions):
    """Which problems of a set are used, and how they become prompts."""

    max_prompt_tokens: Annotated[int, at_least(1)] = 384
    """Longest prompt in tokens.
    Problems with a longer prompt are left out, and counted in a message."""
    skip_bad: bool = False
    """Leave out the rows of a problem set that cannot be used, and list them,
    instead of refusing the set."""
    keep_errata: bool = False
    """Keep the problems in LiveCodeBench's errata,
    whose tests reject correct programs."""


@dataclass(frozen=True)
class Pool(Section):
    """The slots in which sequences are sampled, and the pages of their key/value cache."""

    slots: Annotated[int, at_least(1)] = 64
    """Completions sampled at the same time on the whole mesh;
    as one ends the next begins."""
    page: Annotated[int, at_least(1)] = 64
    """Tokens in a page of the key/value cache."""
    cache_dtype: CacheDtype = ""
    """Type of the key/value cache; empty: that of the activations.
    bfloat16 halves its memory. The attention kernel of TPUs takes no other,
    and multiplies in bfloat16."""
    cache_gib: Annotated[float, at_least(0)] = 0.0
    """Largest key/value cache on each device in GiB;
    0: as large as free memory allows."""
    draft_tokens: Annotated[int, between(0, 15)] = 0
    """Tokens guessed ahead of each sequence, from prompts and samples, and checked together
    (speculative decoding); the samples stay the same. 0: none.
    Pays where few sequences decode at once."""


@dataclass(frozen=True)
class SamplingOptions(Pool):
    """How completions are sampled, in training and in evaluation."""

    max_new_tokens: Annotated[int, at_least(1)] = 96
    """Longest completion in tokens, end-of-sequence included."""


@dataclass(frozen=True)
class Filters(Section):
    """Which tokens may be drawn; the defaults keep all of them."""

    top_k: Annotated[int, at_least(0)] = 0
    """Keep only the k most likely tokens; 0: all."""
    top_p: Annotated[float, between(0, 1, open_low=True)] = 1.0
    """Keep only the most likely tokens,
    the fewest that have this probability together; 1: all."""
    min_p: Annotated[float, between(0, 1)] = 0.0
    """Keep only tokens with at least min_p times
    the most likely token's probability; 0: all."""


@dataclass(frozen=True)
class Drawing(Filters):
    """How tokens are drawn in an evaluation."""

    temperature: Annotated[float, at_least(0)] = 0.8
    """Sampling temperature; 0: greedy, with one sample of each problem."""


@dataclass(frozen=True)
class Processes:
    """Several processes that compute together, each with its part of the mesh."""

    count: Annotated[int, at_least(0)] = 0
    """Number of processes; 0: found out on TPU pods, on GKE and under Slurm,
    one elsewhere."""
    index: Annotated[int, at_least(0)] = 0
    """With count given: which of them this is, from 0.
    Process 0 writes the files."""
    coordinator: str = ""
    """With count given: HOST:PORT of process 0."""


@dataclass(frozen=True)
class EvalOptions(Drawing):
    """What an evaluation has, while training and by itself."""

    max_problems: Annotated[int, at_least(0)] = 0
    """Use only the first max_problems problems; 0: all."""
