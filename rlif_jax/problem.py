"""Host types of a programming problem and of what became of a program. Standard library only."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BODY = re.compile(r"(?:[^\S\n]*(?:#[^\n]*)?\n)*[ \t]+[^\s#]")


@dataclass(frozen=True)
class Test:
    """One input and its expected output, as LiveCodeBench writes them.

    `kind` "stdin": `input` is the whole standard input, `output` the whole expected output.
    `kind` "functional": `input` holds one JSON value per line, the positional arguments; `output`
    is one JSON value. `kind` "assert": `input` is Python source that calls the function by its name
    and asserts what it returns, as HumanEval and MBPP write them; `output` is empty. `private`
    tests are never shown in a prompt. `alternatives` are further outputs, in the form of `output`,
    that are as right where the published row can be read in more than one way.
    """

    input: str
    output: str
    kind: str
    private: bool = False
    alternatives: tuple[str, ...] = ()

    __test__ = False  # not a pytest class

    @property
    def outputs(self) -> tuple[str, ...]:
        """All outputs that are right, the expected one first."""
        return self.output, *self.alternatives


@dataclass(frozen=True)
class Problem:
    """A programming problem with its tests.

    `entry_point` names the function that functional tests call and is None for stdin problems.
    `starter_code` is shown in the prompt ("" for stdin problems). `preamble` is Python that is run
    before a program's function and before the source of an assert test, and is not shown.
    `time_limit_s` is per test.
    """

    id: str
    prompt: str
    tests: tuple[Test, ...]
    starter_code: str = ""
    entry_point: str | None = None
    time_limit_s: float = 6.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    preamble: str = ""


def is_body(text: str) -> bool:
    """Tell whether `text` begins with an indented line, as only the body of a function can.

    Such are the completions of HumanEval, whose official harness runs prompt + completion.
    """
    return _BODY.match(text) is not None


class Verdict(enum.StrEnum):
    """What became of a program, on one test or on all. Only PASSED is a success.

    A failure of the judge's own machinery is no verdict: it is retried once and then raised
    (`execution.pool.SandboxError`), because nothing is known of the program.
    """

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    NO_CODE = "no_code"


@dataclass(frozen=True)
class Outcome:
    """The judgement of one program against one problem.

    `verdict` is PASSED when every test passed, else that of the first failing test. `results` holds
    one verdict per test that was run, in order; without `run_all_tests` it ends at the first
    failure. `answers` holds, with `run_all_tests` only, a short key of what the program answered in
    each test (`execution.compare.answer_key`: equal keys, equal answers), None where it ended
    without an answer; it is made from the program's output alone, never from the expected one.
    """

    verdict: Verdict
    results: tuple[Verdict, ...]
    tests_total: int
    seconds: float
    detail: str = ""
    answers: tuple[str | None, ...] = ()

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.PASSED

    @property
    def fraction_passed(self) -> float:
        """Passed tests over all tests, those that were not run counting as failed."""
        return sum(r is Verdict.PASSED for r in self.results) / self.tests_total
