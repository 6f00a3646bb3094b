"""Problems to select from, and the names of those selected."""

from rlif_jax.problem import Problem, Test


def problem(
    name: str, tests: int = 1, prompt: str = "", private: bool = False, **metadata: str
) -> Problem:
    test = Test("1", "1", "stdin", private)
    return Problem(name, prompt, (test,) * tests, metadata=metadata)


def ids(source) -> list[str]:
    return [source[i].id for i in range(len(source))]
