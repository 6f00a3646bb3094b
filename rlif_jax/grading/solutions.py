"""The solutions that rows of problems have, run against all of their tests."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rlif_jax.config import Execution
from rlif_jax.console.meter import Meter
from rlif_jax.console.screen import Screen
from rlif_jax.data.findings import Contents, Fault, usable_problems
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.grading.judging import judged_in_order
from rlif_jax.judgeable import parsed
from rlif_jax.problem import Outcome, Problem, Verdict

_MISSING = re.compile(r"line \d+ of the test, .*raised NameError: name '(\w+)' is not defined$")
"""How the judge tells of a name that the source of a test lacks."""

_SEVERAL = re.compile(
    r"""
    \b(?:in\s+)?(?:any|arbitrary)\s+order
    | \b(?:print|output|return|find|choose|report|give|construct)\s+any\b(?:\s+\w+)?
    | \bany\s+(?:of\s+(?:them|the)|one\s+of|(?:valid|correct|such|suitable|optimal|possible|
        acceptable)\s+\w+|(?:answer|solution)s?\b)
    | \b(?:multiple|several|many|more\s+than\s+one)\s+(?:(?:possible|valid|correct|optimal|
        different|such)\s+)*(?:answer|solution|output|option|sequence|construction)s?\b
    | \banswers?\s+(?:is|are)\s+not\s+unique
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""How statements say that more than one answer is right; not all that match do mean it."""

SHOWN_TESTS = 5
"""Failing tests of one solution that its message names."""
TOLERANCE = 1e-6
"""How far numbers of a solution may be from the expected ones to be called close."""


@dataclass(frozen=True)
class FailedSolution:
    """The solution of the problem in a line and what became of it; the problem is without tests."""

    line: int
    problem: Problem
    outcome: Outcome | UserError

    @property
    def only_wrong_answers(self) -> bool:
        """Whether it ended normally in all tests that it fails."""
        ends = {Verdict.PASSED, Verdict.WRONG_ANSWER}
        return isinstance(self.outcome, Outcome) and ends >= set(self.outcome.results)

    def fault(self, close: bool) -> Fault:
        """What to say of it; `close` as in `failure`."""
        if isinstance(self.outcome, UserError):
            message = str(self.outcome)
        else:
            message = failure(self.outcome, self.problem, close)
        return Fault(self.line, self.problem.id, "solution", message)


def check_solutions(
    execution: Execution,
    path: Path,
    contents: Contents,
    screen: Screen,
    check_stop: Callable[[], None],
) -> tuple[list[Fault], int]:
    """A fault for each solution that fails, and how many of them fail only by rounded numbers.

    Those would pass with the numeric tolerance `TOLERANCE`. `check_stop` is called now and then and
    may raise. Raises UserError where programs cannot be run, SandboxError when the judge fails.
    """

    def failed(judge: Judge, lines: set[int], meter: Meter, state: str) -> list[FailedSolution]:
        found: list[FailedSolution] = []
        problems = usable_problems(path, lines)
        for one in judged_solutions(judge, execution.workers, problems, check_stop):
            if one is not None:
                found.append(one)
            meter.count(state.format(len(found)))
        return found

    with (
        Judge(execution, run_all_tests=True) as judge,
        Meter(screen, "running solutions", "programs", 0, contents.solutions) as meter,
    ):
        wrong = failed(judge, contents.lines, meter, "{} failed")
    close = {solution.line for solution in wrong if solution.only_wrong_answers}
    if not close or execution.numeric_tolerance > 0:
        return [solution.fault(False) for solution in wrong], 0
    tolerant = replace(execution, numeric_tolerance=TOLERANCE)
    with (
        Judge(tolerant, run_all_tests=False) as judge,
        Meter(screen, "comparing numbers", "programs", 0, len(close)) as meter,
    ):
        close -= {solution.line for solution in failed(judge, close, meter, "{} differ")}
    return [solution.fault(solution.line in close) for solution in wrong], len(close)


def judged_solutions(
    judge: Judge,
    workers: int,
    problems: Iterable[tuple[int, Problem]],
    check_stop: Callable[[], None] = lambda: None,
) -> Iterator[FailedSolution | None]:
    """Of each problem that has a solution, in their order: how it fails, None where it passes.

    Each problem comes with its line. Raises as `judged_in_order` does.
    """

    def entries():
        for line, problem in problems:
            if "solution" not in problem.metadata:
                continue
            statement = replace(problem, tests=())
            try:
                judge.check(problem)
            except UserError as error:  # of tests that only the judge finds fault with
                yield (line, statement, error), None, None
            else:
                yield (line, statement, None), problem, problem.metadata["solution"]

    judged = judged_in_order(judge, workers, entries(), check_stop)
    for (line, statement, error), outcome in judged:
        found = outcome or error
        assert found is not None  # a problem is judged, or cannot be
        passed = isinstance(found, Outcome) and found.passed
        yield None if passed else FailedSolution(line, statement, found)


def failure(outcome: Outcome, problem: Problem, close: bool = False) -> str:
    """Which tests a problem's solution fails, why the first of them, and what to do.

    `close`: it passes all of them where numbers may differ by `TOLERANCE`.
    """
    failing = [(n, v) for n, v in enumerate(outcome.results, 1) if v is not Verdict.PASSED]
    if len(outcome.results) < outcome.tests_total:  # it does not compile, say
        which = f"all {outcome.tests_total} tests"
    else:
        named = ", ".join(f"{n} {v}" for n, v in failing[:SHOWN_TESTS])
        more = f" and {len(failing) - SHOWN_TESTS} more" if len(failing) > SHOWN_TESTS else ""
        which = f"{len(failing)} of {outcome.tests_total} tests ({named}{more})"
    remedy = _close_remedy() if close else _remedy(outcome, problem)
    return f"its own solution fails {which}: {outcome.detail or outcome.verdict}; {remedy}."


def _close_remedy() -> str:
    return (
        f"its outputs differ from the expected ones only in numbers, by at most {TOLERANCE:g}: "
        f"judge this set with --execution.numeric-tolerance={TOLERANCE:g}, or correct the tests"
    )


def _remedy(outcome: Outcome, problem: Problem) -> str:
    missing = _MISSING.search(outcome.detail)
    if missing and missing[1] in _defined(problem.metadata["solution"]):
        return (
            f"a test can call only {problem.entry_point}, and this one also needs {missing[1]} of "
            "the program: write the tests without it, or remove the row"
        )
    verdicts = set(outcome.results) - {Verdict.PASSED}
    if verdicts == {Verdict.TIME_LIMIT}:
        return "raise the row's time limit, or correct the solution"
    if verdicts == {Verdict.MEMORY_LIMIT}:
        return "raise --execution.memory-mb, or correct the solution"
    if verdicts == {Verdict.WRONG_ANSWER} and (match := _SEVERAL.search(problem.prompt)):
        phrase = json.dumps(" ".join(match[0].split()), ensure_ascii=False)
        return (
            f"the statement says {phrase}, so several answers may be right of which the tests "
            "accept one: remove the row, or correct the tests or the solution"
        )
    return "correct the tests or the solution"


def _defined(source: str) -> set[str]:
    """What a program defines at its top level; what it imports does not count."""
    try:
        body = parsed(source).body
    except ValueError:
        return set()
    names = {getattr(node, "name", "") for node in body}  # functions and classes have one
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            found = (child for child in ast.walk(node) if isinstance(child, ast.Name))
            names |= {name.id for name in found if isinstance(name.ctx, ast.Store)}
    return names
