"""Evaluations that take seconds: their arguments, also as flags."""

from pathlib import Path

from rlif_jax.config import Execution
from rlif_jax.evaluation.arguments import Arguments
from support.tiny import write_problems


def small_arguments(model: Path, folder: Path) -> Arguments:
    """Few completions of few tokens, of problems that this writes into the folder."""
    problems = write_problems(folder / "adding.jsonl")
    return Arguments(
        model=str(model),
        data=str(problems),
        max_new_tokens=8,
        n=2,
        k=2,
        execution=Execution(workers=1),
    )


def flags(arguments: Arguments) -> list[str]:
    """The arguments that differ from the defaults, as a person gives them."""
    names = ("model", "data", "max_new_tokens", "n", "k", "out", "slots", "page", "temperature")
    given = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    return [*given, "--execution.workers=1", "--execution.time-limit-s=2"]
