"""What must hold between the fields of the reward, and between the reward and the rest."""

import math
from collections.abc import Collection, Iterator

from rlif_jax.config.learning import Reward
from rlif_jax.config.schema import Config
from rlif_jax.config.spans import FORMS, Span

OF_GENERATED_TESTS = ("b4", "codet", "generated_tests")
"""Rewards that read which tests of the policy a program passes."""


def reward_problems(c: Config, known: Collection[str]) -> Iterator[str]:
    """Settings of the reward that contradict each other, or name what is not there."""
    names = [name for name, _ in c.reward.terms]
    if not names:
        yield f"reward.terms is empty; name at least one of {', '.join(sorted(known))}"
    for name in names:
        if name not in known:
            yield f"reward.terms names {name!r}; known rewards are {', '.join(sorted(known))}"
    if len(set(names)) < len(names):
        yield f"reward.terms names a reward twice: {names}; give it one weight"
    if c.reward.combine == "normalise_then_sum" and c.loss.advantage == "grpo":
        yield (
            "reward.combine=normalise_then_sum with loss.advantage=grpo normalises twice: where "
            "one term alone differs in a group, the second time gives it full size whatever its "
            "weight; use loss.advantage=none, or reward.combine=sum"
        )
    yield from _penalties(c)
    yield from _read(c)
    yield from _generated(c)
    yield from _ramps(c)
    yield from _teacher(c)
    yield from _confidence(c)
    if c.reward.stats_from == "sampler" and c.reward.reward_temperature not in (
        None,
        c.sampling.temperature,
    ):
        yield (
            f"reward.reward_temperature={c.reward.reward_temperature} needs "
            "reward.stats_from=scorer: the sampler sees only sampling.temperature"
        )


def _rewarded(c: Config) -> dict[str, float]:
    """The terms of the reward, and those that a collapse brings."""
    return {**dict(c.reward.terms), **dict(c.guard.terms)}


def _where(c: Config, name: str) -> str:
    """The field that names a term."""
    return "reward.terms" if name in dict(c.reward.terms) else "guard.terms"


def _penalties(c: Config) -> Iterator[str]:
    """Whether the penalties of overlong and of short completions have a size and a place."""
    buffer, penalty = c.reward.overlong_buffer_tokens, c.reward.overlong_penalty
    if (buffer > 0) != (penalty > 0):
        yield (
            f"reward.overlong_buffer_tokens={buffer} and reward.overlong_penalty={penalty} work "
            "together; set both above 0, or both to 0"
        )
    tokens, short = c.reward.short_length_tokens, c.reward.short_length_penalty
    if (tokens > 0) != (short > 0):
        yield (
            f"reward.short_length_tokens={tokens} and reward.short_length_penalty={short} work "
            "together; set both above 0, or both to 0"
        )
    if buffer > c.sampling.max_new_tokens:
        yield (
            f"reward.overlong_buffer_tokens={buffer} is more than sampling.max_new_tokens="
            f"{c.sampling.max_new_tokens}, so that every completion would lose reward; use less"
        )


def _read(c: Config) -> Iterator[str]:
    """Whether terms read what is set, and a part of the completion that there is."""
    try:
        Span.parse(c.reward.over)
    except ValueError:
        yield f"reward.over={c.reward.over!r} must be one of {FORMS}"
    if c.reward.vote_entropy_max is not None and "behaviour_entropy" not in _rewarded(c):
        yield (
            f"reward.vote_entropy_max={c.reward.vote_entropy_max} is read by the reward "
            "behaviour_entropy alone; name it in reward.terms, or leave this at None"
        )
    if c.reward.fuzz_inputs != Reward.fuzz_inputs and c.reward.vote_inputs != "fuzz":
        yield (
            f"reward.fuzz_inputs={c.reward.fuzz_inputs} is read only with reward.vote_inputs=fuzz; "
            f"set that, or leave it at {Reward.fuzz_inputs}"
        )
    if c.reward.similarity != "tokens" and "evol" not in _rewarded(c):
        yield (
            f"reward.similarity={c.reward.similarity} is read by the reward evol alone; name it in "
            "reward.terms, or leave this at tokens"
        )
    if c.reward.quantile is not None and c.reward.aggregate != "quantile":
        yield (
            f"reward.quantile={c.reward.quantile} is read only with reward.aggregate=quantile; "
            "set that, or leave reward.quantile at None"
        )
    if c.reward.quantile is None and c.reward.aggregate == "quantile":
        yield "reward.aggregate=quantile needs reward.quantile, such as 0.1"


def _generated(c: Config) -> Iterator[str]:
    """Whether the policy writes tests where these are read."""
    if c.reward.vote_inputs == "model":
        return
    if names := [name for name in _rewarded(c) if name in OF_GENERATED_TESTS]:
        yield (
            f"{_where(c, names[0])} names {', '.join(names)}, for which the policy has to write "
            f"tests, and reward.vote_inputs={c.reward.vote_inputs} has none written; use "
            "reward.vote_inputs=model"
        )
    if c.reward.generated_tests != Reward.generated_tests:
        yield (
            f"reward.generated_tests={c.reward.generated_tests} is read only with "
            f"reward.vote_inputs=model; set that, or leave it at {Reward.generated_tests}"
        )


def _ramps(c: Config) -> Iterator[str]:
    """Whether weights change of terms that there are, once each, and forward in time."""
    names = [name for name, *_ in c.reward.ramps]
    for name, first, last, _ in c.reward.ramps:
        if name not in dict(c.reward.terms):
            yield f"reward.ramps names {name!r}, which is not in reward.terms; add it to them"
        if first >= last:
            yield (
                f"reward.ramps has {name!r} change from step {first} to step {last}; the second "
                "must be later"
            )
    if len(set(names)) < len(names):
        yield f"reward.ramps names a reward twice: {names}; one ramp for each"


def _teacher(c: Config) -> Iterator[str]:
    """Whether there is a teacher where its votes are read, and a vote that has the pool."""
    asked = "teacher_vote" in _rewarded(c)
    if asked and c.optim.average_decay is None:
        yield (
            f"{_where(c, 'teacher_vote')} names 'teacher_vote', whose teacher is the average of "
            "the parameters, and optim.average_decay=None keeps none; set optim.average_decay, "
            "such as 0.99"
        )
    if not asked and c.reward.teacher_pool != "teacher":
        yield (
            f"reward.teacher_pool={c.reward.teacher_pool!r} is read by the reward teacher_vote "
            "alone; name it in reward.terms, or leave this at teacher"
        )


def _confidence(c: Config) -> Iterator[str]:
    """Whether a stated confidence is asked for, and read."""
    if c.reward.confidence == "stated":
        if "brier" not in _rewarded(c):
            yield (
                "reward.confidence=stated is read by the reward brier alone; name it in "
                "reward.terms, or leave this at sequence"
            )
        if not c.data.ask_confidence:
            yield (
                "reward.confidence=stated needs prompts that ask for it; set data.ask_confidence, "
                "or use reward.confidence=sequence"
            )
    if c.data.ask_confidence and c.data.prompt_style != "chat":
        yield (
            f"data.ask_confidence=True would change the published text of data.prompt_style="
            f"{c.data.prompt_style}; use data.prompt_style=chat"
        )


def gate_problems(c: Config, executing: Collection[str]) -> Iterator[str]:
    """Gates that no group can pass, or that read programs which are not run.

    `executing` are the rewards for which programs are run.
    """
    group, gates = c.sampling.samples_per_prompt, c.gates
    if gates.min_behaviours > group:
        yield (
            f"gates.min_behaviours={gates.min_behaviours} is more than a group of "
            f"sampling.samples_per_prompt={group} can have; use at most that"
        )
    if gates.vote_entropy is not None:
        low, high = gates.vote_entropy
        if low > high:
            yield f"gates.vote_entropy={gates.vote_entropy} is empty; give the lower number first"
        elif low > math.log(group):
            yield (
                f"gates.vote_entropy={gates.vote_entropy} begins above ln {group} = "
                f"{math.log(group):.3f}, the most entropy of sampling.samples_per_prompt={group} "
                "votes; use less"
            )
    runs = c.execution.monitor or any(name in executing for name in _rewarded(c))
    if gates.of_programs and not runs:
        names = ("min_compiling", "min_behaviours", "vote_entropy", "deterministic")
        defaults = type(gates)()
        on = [name for name in names if getattr(gates, name) != getattr(defaults, name)]
        yield (
            f"{' and '.join(f'gates.{name}={getattr(gates, name)}' for name in on)} needs programs "
            "to run, and with execution.monitor=False no reward of reward.terms has them run; set "
            "execution.monitor, or leave the gate out"
        )
