"""What programs answered in tests that are Python source, by the keys that majority voting uses."""

import pytest
from support.execution.judging import EXECUTION, assert_problem

from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Verdict

PASSED, WRONG = Verdict.PASSED, Verdict.WRONG_ANSWER


def answers(judge: Judge, problem: Problem, *programs: str) -> list[tuple[str | None, ...]]:
    futures = [judge.submit(problem, program) for program in programs]
    return [future.result(timeout=60).answers for future in futures]


@pytest.fixture(scope="module")
def thorough():
    with Judge(EXECUTION, run_all_tests=True) as judge:
        yield judge


def test_answers_are_what_the_program_returned_whatever_is_expected(thorough):
    """Equal for values that Python holds equal, and known beyond the first failed assertion."""
    problem = assert_problem("f", "for n in range(3):\n    assert f(n) == 'nobody knows'")
    halves = ("def f(x): return x / 2", "def f(x): return x * 0.5 + 0j", "def f(x): return 0.5 * x")
    later = "def f(x): return x / 2 if x < 2 else 7"
    first, second, third, other = answers(thorough, problem, *halves, later)
    assert first == second == third != other
    assert None not in first + other
    crashing = "def f(x): return x / 2 if x < 2 else 1 / 0"
    assert answers(thorough, problem, crashing, "def f(x): return object()") == [(None,)] * 2
    known = assert_problem("f", "for n in range(3):\n    assert f(n) == n / 2")
    assert answers(thorough, known, halves[0], later) == [first, other]


IMPORTS = "import re\nfrom math import inf, nan\n"
EQUALS = [
    ("1", "True", "1.0", "(1 + 0j)"),
    ("2**70", "2.0**70", "float(2**70)"),
    ("{1, 2}", "{2, 1}", "frozenset({1, 2.0})"),
    ("{1: 'a', 'b': 2}", "{'b': 2, True: 'a'}"),
    ("[1, (2,)]", "[1.0, (2,)]"),
    ("(1, [2])", "(1, [2.0])"),
    ("(1, 2)", "(1.0, 2)"),
    ("{(1, 2)}", "{(1, 2.0)}"),
    ("'1'",), ("b'1'",), ("None",), ("1.5",), ("-1",), ("-1j",), ("nan", "-nan"), ("inf",),
    ("[]",), ("()",), ("{}",), ("set()", "frozenset()"), ("''",), ("b''",), ("range(2)",),
    ("['', '']",), ("['']",), ("[[], []]",), ("[[[]]]",), ("{'1'}",), ("{1: 2, 3: 4}",),
    ("{1: 4, 3: 2}",), ("[1, 2]",), ("int", "type(7)"), ("bool",), ("type(None)",), ("[int]",),
    ("'int'",), ("re.match('', 'a')", "re.search('b', 'b')"),
]  # fmt: skip


def test_answers_are_equal_for_equal_values_only(thorough):
    problem = assert_problem("f", "f()")
    keys = [
        set(answers(thorough, problem, *(f"{IMPORTS}def f(): return {value}" for value in group)))
        for group in EQUALS
    ]
    assert all(len(group) == 1 and None not in next(iter(group)) for group in keys)
    assert len(set().union(*keys)) == len(EQUALS)


def test_answers_hold_what_is_left_in_the_arguments_of_a_function_that_returns_nothing(thorough):
    problem = assert_problem("f", "x = [2, 1]\nf(x)\nassert x == 'nobody knows'")
    sorting = ("def f(x): x.sort()", "def f(x): x[:] = [1, 2]", "def f(x): x.reverse()")
    first, second, third = answers(thorough, problem, *sorting)
    assert first == second == third != answers(thorough, problem, "def f(x): pass")[0]
    returned = ("def f(x): x.sort(); return 1", "def f(x): return 1")
    first, second = answers(thorough, problem, *returned)
    assert first == second


def test_going_on_after_a_failed_assertion_changes_no_verdict(run, thorough):
    """Not even where the source catches it, or where what comes later ends otherwise."""
    sources = {
        "assert f(1) == 2\nassert f(2) == 2": WRONG,
        "assert f(1) == 1\nassert f(2) == 1": WRONG,
        "for _ in [1]:\n    while True:\n        assert f(1) == 2\n        break": WRONG,
        "assert f(1) == 2\nf(0)": WRONG,
        "assert f(1) == 2\nundefined": WRONG,
        "class A:\n    def a(self):\n        assert f(1) == 2\nA().a()": WRONG,
        "class A:\n    assert f(1) == 2": WRONG,
        "try: assert f(1) == 2\nexcept AssertionError: pass": PASSED,
        "from contextlib import *\nwith suppress(AssertionError): assert f(1) == 2": PASSED,
        "assert f(1) == 1 and f(2) == 2": PASSED,
        "if f(1) == 1: pass\nelse: assert False": PASSED,
    }
    program = "def f(x): return x if x else 1 / 0"
    for source, verdict in sources.items():
        problem = assert_problem("f", source)
        assert run(problem, program).verdict is verdict, source
        assert thorough.submit(problem, program).result().verdict is verdict, source
