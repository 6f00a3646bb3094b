"""What makes a configuration impossible, found before any device is touched."""

import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import fields, is_dataclass
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rlif_jax.config.guard_rules import guard_problems
from rlif_jax.config.loss_rules import loss_problems
from rlif_jax.config.model_rules import model_problems
from rlif_jax.config.ranges import Range
from rlif_jax.config.reward_rules import gate_problems, reward_problems
from rlif_jax.config.schema import Config, Data, Mesh
from rlif_jax.config.shared import Processes
from rlif_jax.errors import UserError

_UNIONS = (Union, types.UnionType)

Spelling = Callable[..., str]
"""How messages write the dotted name of a field, alone or with its value."""


def as_field(name: str, *value: Any) -> str:
    """`sampling.slots=0`, as a configuration has it."""
    return "=".join([name, *map(repr, value)])


def as_flag(name: str, *value: Any) -> str:
    """`--max-new-tokens 0`, as a command line has it."""
    return " ".join([f"--{name.replace('_', '-')}", *map(repr, value)])


def validate(
    config: Config, known_rewards: Collection[str], executing: Collection[str] = ()
) -> None:
    """Refuse a configuration that cannot run, before any device is touched.

    `executing` are those of the known rewards for which programs are run.

    Raises:
        UserError: all problems at once, each naming the field, its value and the remedy. Rules
            across fields are left out where a field has the wrong type.
    """
    wrong = type_problems(config)
    problems = [*wrong, *range_problems(config)]
    if not wrong:
        problems += [*_sizes(config), *_rules(config), *reward_problems(config, known_rewards)]
        problems += guard_problems(config, known_rewards)
        problems += gate_problems(config, executing)
    if problems:
        raise UserError(f"the configuration cannot run:\n{listed(problems)}")


def validate_arguments(arguments: Any, rules: Callable[[Any], Iterable[str]] | None = None) -> None:
    """`validate` of a command's arguments, with the command's own rules across them.

    Raises:
        UserError: all problems at once, spelled as flags.
    """
    wrong = type_problems(arguments, as_flag)
    problems = [*wrong, *range_problems(arguments, as_flag)]
    if rules and not wrong:
        problems += rules(arguments)
    if problems:
        raise UserError("; ".join(problems) + ".")


def listed(problems: Iterable[str]) -> str:
    """A line for each problem."""
    return "\n".join(f"  - {problem}" for problem in problems)


# ---- what the declarations say: types, Literals, ranges


def type_problems(section: Any, spelling: Spelling = as_field) -> list[str]:
    """Fields that hold a value of another type: a Python file may assign anything."""
    return [
        f"{spelling(name, value)} must be of type {_type_name(hint)}"
        for name, value, hint in _declarations(section)
        if not _has_type(value, hint)
    ]


def range_problems(section: Any, spelling: Spelling = as_field) -> list[str]:
    """Fields whose value is not among their choices, or whose numbers lie outside their range."""
    return [
        f"{spelling(name, value)} {'' if part is value else f'holds {part!r}, which '}{problem}"
        for name, value, hint in _declarations(section)
        for part, problem in _out_of_range(value, hint)
    ]


def _declarations(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and declared type of every field; sections are taken apart."""
    hints = get_type_hints(type(section), include_extras=True)
    for field in fields(section):
        name, value, hint = prefix + field.name, getattr(section, field.name), hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, hint):
            yield from _declarations(value, f"{name}.")
        else:
            yield name, value, hint


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value is of a declared type; the choices of a Literal are left to its range."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return True
    if origin is Annotated:
        return _has_type(value, arguments[0])
    if origin in _UNIONS:
        return any(_has_type(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = _element_types(value, arguments)
        return len(kinds) == len(value) and all(map(_has_type, value, kinds))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else origin or hint)


def _element_types(value: tuple[Any, ...], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The declared type of each element of a tuple; `tuple[int, ...]` has one for any length."""
    return arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments


def _type_name(hint: Any) -> str:
    """A declared type as Python writes it, without ranges."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in _UNIONS:
        return " or ".join(map(_type_name, arguments))
    if origin is tuple:
        return f"tuple[{', '.join(map(_type_name, arguments))}]"
    return {Ellipsis: "...", types.NoneType: "None"}.get(hint) or hint.__name__


def _out_of_range(value: Any, hint: Any) -> Iterator[tuple[Any, str]]:
    """The parts of a value that its declaration does not allow, and what is wrong with each."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS and value is not None:
        for one in arguments:
            yield from _out_of_range(value, one)
    elif origin is tuple and isinstance(value, tuple):
        for element, kind in zip(value, _element_types(value, arguments), strict=False):
            yield from _out_of_range(element, kind)
    elif origin is Literal and value not in arguments:
        choices = ", ".join(str(choice) or "''" for choice in arguments)
        yield value, f"is invalid; choose one of {choices}"
    elif origin is Annotated:
        yield from _out_of_range(value, arguments[0])
        for one in hint.__metadata__:
            if isinstance(one, Range) and isinstance(value, Real) and (said := one.problem(value)):
                yield value, said


# ---- rules across fields


def _sizes(c: Config) -> Iterator[str]:
    """Whether the batch can be divided the way the configuration asks."""
    n, group, minis = c.data.prompts_per_step, c.sampling.samples_per_prompt, c.loss.mini_batches
    normalises = c.loss.advantage != "none" or c.reward.combine == "normalise_then_sum"
    if group == 1 and normalises:
        yield (
            "sampling.samples_per_prompt=1 leaves a group of one, whose normalised advantage is "
            "always zero; use 2 or more, or loss.advantage=none with reward.combine=sum"
        )
    if group == 1 and c.data.max_refills:
        yield (
            f"data.max_refills={c.data.max_refills} replaces groups whose rewards are equal, and "
            "sampling.samples_per_prompt=1 leaves groups of one; use 2 or more, or 0 refills"
        )
    if min(n, group, minis) < 1:
        return  # reported with the ranges
    yield from slot_problems(c.sampling.slots, c.mesh, prefix="sampling.")
    if n % minis:
        yield (
            f"data.prompts_per_step={n} is not divisible by loss.mini_batches={minis}; "
            f"choose one of {_divisors(n)}"
        )
    if 0 < c.loss.tokens_per_micro_batch < c.longest_row:
        yield (
            f"loss.tokens_per_micro_batch={c.loss.tokens_per_micro_batch} is less than the longest "
            f"sequence, data.max_prompt_tokens + sampling.max_new_tokens - 1 = {c.longest_row}; "
            "use at least that, or 0"
        )


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def slot_problems(
    slots: int, mesh: Mesh, spelling: Spelling = as_field, prefix: str = ""
) -> Iterator[str]:
    """Whether every shard of the rows has a slot to decode in."""
    if slots < (shards := mesh.data * mesh.fsdp * mesh.context):
        yield (
            f"{spelling(f'{prefix}slots', slots)} is less than {spelling('mesh.data')} * "
            f"{spelling('mesh.fsdp')} * {spelling('mesh.context')} = {shards}: each shard needs a "
            f"slot of its own; use a multiple of {shards}"
        )


def process_problems(processes: Processes, spelling: Spelling = as_field) -> Iterator[str]:
    """Whether this process is one of those that there are."""
    count, index = processes.count, processes.index
    if count and index >= count:
        yield (
            f"{spelling('processes.index', index)} must be less than "
            f"{spelling('processes.count')}, which is {count}; the processes count from 0"
        )
    if not count and (index or processes.coordinator):
        yield (
            f"{spelling('processes.index', index)} and {spelling('processes.coordinator')} need "
            f"{spelling('processes.count')}, the number of processes"
        )
    if count > 1 and not re.fullmatch(r"\S+:\d+", processes.coordinator):
        yield (
            f"{spelling('processes.coordinator', processes.coordinator)} must be the HOST:PORT of "
            f"process 0, for {spelling('processes.count', count)}; with "
            f"{spelling('processes.count', 0)} JAX finds them out on TPU pods, on GKE and under "
            "Slurm"
        )


def greedy_problems(
    temperature: float, samples: str, n: int, spelling: Spelling = as_field, prefix: str = ""
) -> Iterator[str]:
    """Whether greedy decoding is asked for more than one sample; `samples` is their field."""
    if temperature == 0 and n > 1:
        yield (
            f"{spelling(f'{prefix}temperature', 0)} is greedy, which gives the same sample each "
            f"time; use {spelling(prefix + samples, 1)} instead of {n}"
        )


def _rules(c: Config) -> Iterator[str]:
    """What else must hold between fields."""
    yield from loss_problems(c)
    yield from model_problems(c)
    if c.rounded_to and c.loss.sampler_correction_cap is None:
        yield (
            f"sampling.weights_dtype={c.rounded_to!r} samples from another policy than the "
            "trainer's; weigh each token by the ratio of the two with "
            "loss.sampler_correction_cap=2.0, or leave weights_dtype empty"
        )
    if c.eval.every:
        if c.eval.pass_at > c.eval.samples_per_problem:
            yield (
                f"eval.pass_at={c.eval.pass_at} needs at least as many samples; "
                f"eval.samples_per_problem={c.eval.samples_per_problem}"
            )
        yield from greedy_problems(
            c.eval.temperature, "samples_per_problem", c.eval.samples_per_problem, prefix="eval."
        )
    elif c.checkpoint.keep_best:
        yield (
            f"checkpoint.keep_best={c.checkpoint.keep_best} needs evaluations, and eval.every=0 "
            "has none; set eval.every, or leave it at 0"
        )
    if repeated := sorted({name for name in c.log.to if c.log.to.count(name) > 1}):
        yield f"log.to names {', '.join(repeated)} twice; name each tracker once"
    yield from _problem_sets(c.data)
    yield from _profile(c)
    yield from process_problems(c.processes)
    if c.init_optimizer != "fresh" and not c.init_from:
        yield (
            f"init_optimizer={c.init_optimizer} is read only with init_from; name a run there, or "
            "leave it at fresh"
        )
    if c.name != Path(c.name).name or c.name in ("", ".", ".."):
        yield f"name={c.name!r} must be a plain folder name; use run_dir for a path"
    if "://" in c.run_dir and not re.match(r"gs://[^/]+/.*[^/]", c.run_dir):
        yield f"run_dir={c.run_dir!r} is neither a local folder nor gs://BUCKET/PATH"


def _problem_sets(data: Data) -> Iterator[str]:
    """Whether the sets to train on can be mixed and filtered as asked."""
    names = [name for name, _ in data.mix]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        yield f"data.mix names {', '.join(map(repr, repeated))} twice; give each set one weight"
    for field in ("platforms", "difficulties"):
        if "" in getattr(data, field):
            yield f"data.{field} has an empty name; leave it out"
    low, high = data.pass_rates
    if low > high:
        yield f"data.pass_rates={data.pass_rates} must be two numbers, the lower one first"
    if data.pass_rates != (0.0, 1.0) and not data.graded:
        yield (
            f"data.pass_rates={data.pass_rates} needs data.graded, the file that rlif_jax.grade "
            "wrote for samples on the problems"
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
