"""Problems to select from, and the names of those selected."""

from rlif_jax.problem import Problem, Test


def problem(name: str, tests: int = 1, prompt: str = "", **metadata: str) -> Problem:
    return Problem(name, prompt, (Test("1", "1", "stdin"),) * tests, metadata=metadata)


def ids(source) -> list[str]:
    return [source[i].id for i in range(len(source))]
