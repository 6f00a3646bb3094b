"""Ways to write a problem briefly, and the limits that most tests here run under."""

from rlif_jax import config
from rlif_jax.problem import Problem, Test

EXECUTION = config.Execution(workers=2, time_limit_s=1.0, memory_mb=256, output_kb=64)


def stdin_problem(*pairs: tuple[str, str]) -> Problem:
    return Problem("stdin", "", tuple(Test(i, o, "stdin") for i, o in pairs))


def function_problem(name: str, *pairs: tuple[str, str]) -> Problem:
    tests = tuple(Test(i, o, "functional") for i, o in pairs)
    return Problem("function", "", tests, entry_point=name)


def assert_problem(name: str, *sources: str, starter_code: str = "") -> Problem:
    tests = tuple(Test(source, "", "assert") for source in sources)
    return Problem("assert", "", tests, starter_code, entry_point=name)
