"""Whether a problem can be judged at all: what its tests need, before a program is run."""

import re

from rlif_jax.errors import UserError
from rlif_jax.execution.compare import load_json
from rlif_jax.execution.decide import shorten
from rlif_jax.problem import Problem, Test, is_body

KINDS = ("stdin", "functional", "assert")


def check_problem(problem: Problem) -> None:
    """Raise UserError when the problem has no tests or one that cannot be judged."""

    def refuse(what: str) -> UserError:
        return UserError(
            f"Problem {problem.id!r} cannot be judged: {what}. Correct the row or drop the problem."
        )

    if not problem.tests:
        raise refuse("it has no tests")
    kinds = sorted({test.kind for test in problem.tests})
    if len(kinds) > 1:
        raise refuse(f"it mixes tests of kind {' and '.join(map(repr, kinds))}")
    if kinds[0] not in KINDS:
        raise refuse(f"its tests are of kind {kinds[0]!r}, not {', '.join(map(repr, KINDS))}")
    if kinds[0] != "stdin" and not problem.entry_point:
        raise refuse(f"its tests are of kind {kinds[0]!r}, and there is no entry_point")
    for number, test in enumerate(problem.tests, 1):
        if what := _flaw(problem, test):
            raise refuse(f"test {number} {what}")


def _flaw(problem: Problem, test: Test) -> str:
    """What keeps one test from being judged, "" for nothing."""
    if test.kind == "functional":
        for text in (*filter(str.strip, test.input.split("\n")), *test.outputs):
            try:
                load_json(text)
            except ValueError:
                return f"has {shorten(text)}, which is not JSON"
    elif test.kind == "assert":
        name = problem.entry_point or ""
        if not name.isidentifier():
            return f"calls {name!r}, which is not the name of a function"
        if not re.search(rf"\b{name}\b", test.input):
            return f"does not mention the function {name!r}: {shorten(test.input)}"
    return ""


def preamble(problem: Problem) -> str:
    """What is run before a program, and before the source of an assert test.

    That is what `starter_code` has before the answer's own part, the function or the class
    Solution: imports, functions and classes that it or the test may use. So a program needs not
    repeat them; one that does overrides them for itself, and the test's source sees the problem's
    own. Statements that fail are passed over, and so is one that is not complete. "" for stdin
    problems, whose programs are whole: to run the starter code would read their input.

    A test's own setup (MBPP's `test_imports`) belongs to the test's source alone. So a program
    needs its own imports, as in EvalPlus, which runs it by itself; in a harness that puts setup,
    program and asserts into one namespace, it would find those of the test.
    """
    if problem.entry_point is None:
        return ""
    own = rf"^(?:async\s+)?(?:def\s+{re.escape(problem.entry_point)}|class\s+Solution)\b"
    head = re.search(own, problem.starter_code, re.MULTILINE)
    starter = problem.starter_code[: head.start()] if head else problem.starter_code
    return problem.preamble + starter


def whole_program(problem: Problem, code: str) -> str:
    """The program that `code` is: a mere body is put behind the starter code, which opens it."""
    starter = problem.starter_code.rstrip()
    return f"{starter}\n{code}" if starter and is_body(code) else code
