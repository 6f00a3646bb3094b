"""What makes a configuration impossible, found before any device is touched."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

from rlif_jax.config.schema import CacheDtype, Config, Data, Execution, PromptStyle, Thinking
from rlif_jax.errors import UserError


def validate(config: Config, known_rewards: Collection[str]) -> None:
    """Refuse a configuration that cannot run, before any device is touched.

    Raises:
        UserError: all problems at once, each naming the field, its value and the remedy.
    """
    problems = [
        *_sizes(config),
        *range_problems(config),
        *_names(config),
        *_reward_terms(config, known_rewards),
        *_profile(config),
    ]
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"the configuration cannot run:\n{lines}")


def validate_execution(execution: Execution) -> None:
    """`validate` of how programs are run, for commands that do nothing else."""
    validate(Config(execution=execution), [name for name, _ in Config().reward.terms])


def _sizes(c: Config) -> Iterator[str]:
    """Whether the batch can be cut the way the configuration asks."""
    n, group, share = c.data.prompts_per_step, c.sampling.samples_per_prompt, c.samples_per_row
    minis, micros, shards = c.loss.mini_batches, c.loss.micro_batches, c.mesh.data * c.mesh.fsdp
    normalises = c.loss.advantage != "none" or c.reward.combine == "normalise_then_sum"
    if group == 1 and normalises:
        yield (
            "sampling.samples_per_prompt=1 leaves a group of one, whose normalised advantage is "
            "always zero; use 2 or more, or loss.advantage=none with reward.combine=sum"
        )
    if min(n, group, share, minis, micros, shards) < 1:
        return  # reported with the ranges
    if c.sampling.slots < shards:
        yield (
            f"sampling.slots={c.sampling.slots} are fewer than mesh.data * mesh.fsdp = {shards}, "
            "each of which decodes its own; use a multiple of that"
        )
    rows = n * group // share // minis
    if group % share:
        yield (
            f"sampling.samples_per_prompt={group} is not divisible by loss.samples_per_row="
            f"{share}; choose one of {_divisors(group)}"
        )
    elif n % minis:
        yield (
            f"data.prompts_per_step={n} is not divisible by loss.mini_batches={minis}; "
            f"choose one of {_divisors(n)}"
        )
    elif rows % micros:
        yield (
            f"a mini-batch of {rows} rows (of {share} completions each) is not divisible by "
            f"loss.micro_batches={micros}; choose one of {_divisors(rows)}"
        )
    elif rows // micros % shards:
        yield (
            f"a micro-batch of {rows // micros} rows (of {share} completions each) is not "
            f"divisible by mesh.data * mesh.fsdp = {shards}; use fewer loss.micro_batches or "
            "loss.samples_per_row, or more prompts"
        )


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def range_problems(c: Config) -> Iterator[str]:
    """Whether each number lies where it makes sense."""
    for name, value, least in _least(c):
        if value < least:
            yield f"{name}={value} must be at least {least}"
    for name, value in _positive(c):
        if not value > 0:
            yield f"{name}={value} must be positive"
    if not 0 <= c.loss.clip_low < 1:
        yield f"loss.clip_low={c.loss.clip_low} must be in [0, 1)"
    if c.loss.dual_clip is not None and c.loss.dual_clip <= 1 + c.loss.clip_high:
        yield (
            f"loss.dual_clip={c.loss.dual_clip} must exceed 1 + loss.clip_high="
            f"{1 + c.loss.clip_high}, or be None"
        )
    if not math.isfinite(c.execution.numeric_tolerance):
        yield f"execution.numeric_tolerance={c.execution.numeric_tolerance} must be a finite number"
    if c.eval.every and c.eval.pass_at > c.eval.samples_per_problem:
        yield (
            f"eval.pass_at={c.eval.pass_at} needs at least as many samples; "
            f"eval.samples_per_problem={c.eval.samples_per_problem}"
        )
    if c.eval.every:
        yield from sampling_problems(
            "eval.", c.eval, "samples_per_problem", c.eval.samples_per_problem
        )
    yield from _mixture(c.data)
    if c.name != Path(c.name).name or c.name in ("", ".", ".."):
        yield f"name={c.name!r} must be a plain folder name; use run_dir for a path"


def _mixture(data: Data) -> Iterator[str]:
    """Whether the sets to train on can be mixed and filtered as asked."""
    names = [name for name, _ in data.mix]
    for name, weight in data.mix:
        if not (math.isfinite(weight) and weight > 0):
            yield f"data.mix gives {name!r} the weight {weight}, which must be positive"
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        yield f"data.mix names {', '.join(map(repr, repeated))} twice; give each set one weight"
    for field in ("platforms", "difficulties"):
        if "" in getattr(data, field):
            yield f"data.{field} has an empty name; leave it out"
    low, high = data.pass_rates
    if not 0 <= low <= high <= 1:
        yield f"data.pass_rates={low} {high} must be two numbers in [0, 1], the lower one first"
    if data.pass_rates != (0.0, 1.0) and not data.graded:
        yield (
            f"data.pass_rates={low} {high} needs data.graded, the file that rlif_jax.grade wrote "
            "for samples on the problems"
        )


def _names(c: Config) -> Iterator[str]:
    """Whether options with names exist: a configuration file may name anything."""
    for name, value, kind in (
        ("data.prompt_style", c.data.prompt_style, PromptStyle),
        ("data.thinking", c.data.thinking, Thinking),
        ("sampling.cache_dtype", c.sampling.cache_dtype, CacheDtype),
    ):
        if value not in get_args(kind):
            known = ", ".join(one or "''" for one in get_args(kind))
            yield f"{name}={value!r} is none of {known}"


def sampling_problems(prefix: str, fields: Any, count: str, samples: int) -> list[str]:
    """What is wrong with the temperature and the filters of an evaluation; `prefix` names them."""
    problems = []
    if not (math.isfinite(fields.temperature) and fields.temperature >= 0):
        problems.append(f"{prefix}temperature={fields.temperature} must be 0 (greedy) or positive")
    if fields.temperature == 0 and samples > 1:
        problems.append(
            f"{prefix}temperature=0 is greedy, which gives the same sample each time; use "
            f"{prefix}{count}=1 instead of {samples}"
        )
    if fields.top_k < 0:
        problems.append(f"{prefix}top_k={fields.top_k} must be at least 0")
    if not 0 < fields.top_p <= 1:
        problems.append(f"{prefix}top_p={fields.top_p} must be in (0, 1]")
    if not 0 <= fields.min_p <= 1:
        problems.append(f"{prefix}min_p={fields.min_p} must be in [0, 1]")
    return problems


def _least(c: Config) -> tuple[tuple[str, float, float], ...]:
    return (
        ("steps", c.steps, 1),
        ("seed", c.seed, 0),
        ("data.min_tests", c.data.min_tests, 0),
        ("data.prompts_per_step", c.data.prompts_per_step, 1),
        ("data.max_prompt_tokens", c.data.max_prompt_tokens, 1),
        ("data.prompt_bucket", c.data.prompt_bucket, 1),
        ("sampling.samples_per_prompt", c.sampling.samples_per_prompt, 1),
        ("sampling.max_new_tokens", c.sampling.max_new_tokens, 1),
        ("sampling.bucket", c.sampling.bucket, 1),
        ("sampling.slots", c.sampling.slots, 1),
        ("sampling.page", c.sampling.page, 1),
        ("sampling.cache_gib", c.sampling.cache_gib, 0),
        ("reward.short_length_tokens", c.reward.short_length_tokens, 0),
        ("reward.short_length_penalty", c.reward.short_length_penalty, 0),
        ("loss.std_floor", c.loss.std_floor, 0),
        ("loss.clip_high", c.loss.clip_high, 0),
        ("loss.kl_coef", c.loss.kl_coef, 0),
        ("loss.epochs", c.loss.epochs, 1),
        ("loss.mini_batches", c.loss.mini_batches, 1),
        ("loss.micro_batches", c.loss.micro_batches, 1),
        ("loss.samples_per_row", c.loss.samples_per_row, 0),
        ("optim.learning_rate", c.optim.learning_rate, 0),
        ("optim.warmup_steps", c.optim.warmup_steps, 0),
        ("optim.weight_decay", c.optim.weight_decay, 0),
        ("mesh.data", c.mesh.data, 1),
        ("mesh.fsdp", c.mesh.fsdp, 1),
        ("mesh.tensor", c.mesh.tensor, 1),
        ("execution.workers", c.execution.workers, 1),
        ("execution.memory_mb", c.execution.memory_mb, 64),
        ("execution.output_kb", c.execution.output_kb, 1),
        ("execution.numeric_tolerance", c.execution.numeric_tolerance, 0),
        ("eval.every", c.eval.every, 0),
        ("eval.samples_per_problem", c.eval.samples_per_problem, 1),
        ("eval.pass_at", c.eval.pass_at, 1),
        ("eval.max_problems", c.eval.max_problems, 0),
        ("checkpoint.every", c.checkpoint.every, 0),
        ("checkpoint.keep", c.checkpoint.keep, 1),
    )


def _positive(c: Config) -> tuple[tuple[str, float], ...]:
    reward_temperature = c.reward.reward_temperature
    return (
        ("sampling.temperature", c.sampling.temperature),
        ("reward.reward_temperature", 1.0 if reward_temperature is None else reward_temperature),
        ("optim.clip_norm", c.optim.clip_norm),
        ("optim.eps", c.optim.eps),
        ("execution.time_limit_s", c.execution.time_limit_s),
    )


def _reward_terms(c: Config, known: Collection[str]) -> Iterator[str]:
    """Whether the reward names things that exist."""
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
    if c.reward.stats_from == "sampler" and c.reward.reward_temperature not in (
        None,
        c.sampling.temperature,
    ):
        yield (
            f"reward.reward_temperature={c.reward.reward_temperature} needs "
            "reward.stats_from=scorer: the sampler sees only sampling.temperature"
        )


def _profile(c: Config) -> Iterator[str]:
    """Whether the steps to trace are steps of the run."""
    try:
        traced = c.profile.traced
    except ValueError:
        yield f"profile.steps={c.profile.steps!r} is not FROM:TO; name two steps, as in 3:5"
        return
    if c.profile.steps and not (traced and traced[0] >= 1):
        yield (
            f"profile.steps={c.profile.steps} names no step; FROM must be at least 1 and TO at "
            "least FROM"
        )
    elif traced and traced[-1] > c.steps:
        yield f"profile.steps={c.profile.steps} ends after the run, which has steps={c.steps}"
