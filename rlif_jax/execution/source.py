"""What is run for an answer: the problem's preamble, and the program."""

import re

from rlif_jax.problem import Problem, is_body


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
