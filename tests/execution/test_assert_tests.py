"""Tests that are Python source: verdicts, what passes between the two processes, and answers."""

import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.execution.judging import EXECUTION, assert_problem

from rlif_jax import config
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge, SandboxError
from rlif_jax.problem import Problem, Test, Verdict

PASSED, WRONG, CRASHED = Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR
SLOW, MEMORY, OUTPUT = Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT
CHECK = "def check(candidate):\n    assert candidate(2) == 3, 'two'\n\ncheck(f)"
BUSY = """import time
def f(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
    return True
"""

ENDINGS = {
    "right": ("def f(x): return x + 1", PASSED, ""),
    "method": ("class Solution:\n    def f(self, x): return x + 1", PASSED, ""),
    "prints": ("print('hello')\ndef f(x):\n    print(x)\n    return x + 1", PASSED, ""),
    "wrong": (
        "def f(x): return x",
        WRONG,
        "line 2 of the test, \"assert candidate(2) == 3, 'two'\"",
    ),
    "raises": ("def f(x): return x / 0", CRASHED, "raised ZeroDivisionError: division by zero"),
    "own": ("class E(KeyError): pass\ndef f(x): raise E('k')", CRASHED, "raised KeyError: 'k'"),
    "asserts": ("def f(x): assert x < 0, 'mine'", CRASHED, "raised AssertionError: mine"),
    "arguments": ("def f(): return 3", CRASHED, "raised TypeError: f() takes 0 positional"),
    "recursive": ("def f(x): return f(x)", CRASHED, "raised RecursionError: maximum recursion"),
    "at load": ("x = 1 / 0\ndef f(x): return x + 1", CRASHED, "exit status 1: ZeroDivisionError"),
    "absent": ("def g(x): return x + 1", CRASHED, "the program defines no function 'f'"),
    "no python": ("def f(x: return x + 1", Verdict.COMPILE_ERROR, "invalid syntax"),
    "exits": ("import sys\ndef f(x): sys.exit(0)", CRASHED, "SystemExit: 0"),
    "ends": ("import os\ndef f(x): os._exit(0)", CRASHED, "ended before the function returned"),
    "signal": ("import os\ndef f(x): os.abort()", CRASHED, "killed by SIGABRT"),
    "forever": ("def f(x):\n    while True: pass", SLOW, "used more than 1 s of CPU time"),
    "sleeps": (
        "import time\ndef f(x): time.sleep(60)",
        SLOW,
        "ran longer than 5 s of wall-clock time",
    ),
    "hungry": ("def f(x): return len(bytearray(1 << 30))", MEMORY, "ran out of memory"),
    "talkative": ("def f(x): return 'x' * 10**6", WRONG, "line 2 of the test"),
    "too talkative": (
        "def f(x): return 'x' * (17 << 20)",
        OUTPUT,
        "returned more than the output limit of 16384 KiB (--execution.output-kb)",
    ),
    "nothing": ("  ", Verdict.NO_CODE, "no code"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_each_verdict(run, name):
    code, verdict, words = ENDINGS[name]
    outcome = run(assert_problem("f", CHECK), code)
    assert outcome.verdict is verdict, outcome
    assert words in outcome.detail


SOURCES = {
    "tuple": ("assert f((1, 2)) == (1, 2)", PASSED),
    "tuple is no list": ("assert f((1, 2)) == [1, 2]", WRONG),
    "list is no tuple": ("assert f([1, 2]) == (1, 2)", WRONG),
    "deep tuple": ("assert f({'a': [(1,), [2]]}) == {'a': [(1,), [2]]}", PASSED),
    "deep list": ("assert f({'a': [(1,), [2]]}) == {'a': [[1], [2]]}", WRONG),
    "type": ("assert type(f({1})) is set and type(f(frozenset({1}))) is frozenset", PASSED),
    "keys": ("assert f({1: 'a', (2, 3): 'b'}) == {(2, 3): 'b', 1: 'a'}", PASSED),
    "no key": ("assert f({None: 0})[None] == 0 and f({None: 0}).get('None') is None", PASSED),
    "order of keys": ("assert list(f({'b': 1, 'a': 2})) == ['b', 'a']", PASSED),
    "truth": ("assert f(True) is True and f(None) is None and f(1) is not True", PASSED),
    "bytes": ("assert f(b'\\0\\xff') == b'\\0\\xff' and f(b'') == b''", PASSED),
    "complex": ("assert f(1 - 2j) == 1 - 2j", PASSED),
    "range": ("assert f(range(1, 9, 2)) == range(1, 9, 2)", PASSED),
    "long": ("assert f(3**30000) == 3**30000 and f(-2**63) == -2**63", PASSED),
    "zero": (
        "from math import copysign, inf, isnan, nan\n"
        "assert copysign(1, f(-0.0)) == -1 and f(inf) == inf and isnan(f(nan))",
        PASSED,
    ),
    "text": ("assert f('a\\n\\ud800 \\U0001f600') == 'a\\n\\ud800 \\U0001f600'", PASSED),
    "tolerance": ("assert abs(f(0.1 + 0.2) - 0.3) < 1e-9", PASSED),
    "no tolerance": ("assert f(0.1 + 0.2) == 0.3", WRONG),
    "too far": ("import math\nassert math.isclose(f(1.01), 1.0, rel_tol=1e-3)", WRONG),
    "keywords": ("assert f(x=3) == 3", PASSED),
    "wrong keyword": ("assert f(y=3) == 3", CRASHED),
    "map": ("assert list(map(f, [1, 2])) == [1, 2]", PASSED),
    "name": ("assert f.__name__ == 'f' and callable(f)\nf(1)", PASSED),
    "expected error": ("try: f()\nexcept TypeError: pass\nelse: assert False", PASSED),
    "no error": ("try: f(1)\nexcept TypeError: pass\nelse: assert False, 'none'", WRONG),
    "other error": ("try: f()\nexcept KeyError: pass", CRASHED),
    "unittest": (
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
        "        self.assertEqual(f(1), 1)\n        self.assertRaises(TypeError, f)\n"
        "assert unittest.TextTestRunner().run(T('test')).wasSuccessful()",
        PASSED,
    ),
    "random": ("import random\nn = random.random()\nassert f(n) == n", PASSED),
    "not called": ("assert True  # f", WRONG),
    "no name": ("assert f(1) == one", WRONG),
    "no python": ("assert f(1 == 1", WRONG),
    "ends early": ("f(1)\nimport sys\nsys.exit(0)", WRONG),
    "ends at once": ("f(1)\nimport os\nos._exit(0)", WRONG),
    "function passed": ("assert f(len) is len", WRONG),
    "deep": ("x = []\nfor _ in range(10**5): x = [x]\nf(x)", WRONG),
    "forever": ("f(1)\nwhile True: pass", SLOW),
    "hungry": ("f(1)\nbytearray(1 << 30)", MEMORY),
    "sandboxed": (
        "import os, socket\nf(1)\ndef other(): os.execv('/bin/ls', ['ls'])\n"
        "for attempt in [lambda: open('/etc/passwd'), socket.socket, other]:\n"
        "    try: attempt()\n    except OSError: continue\n"
        "    assert False",
        PASSED,
    ),
}  # fmt: skip
SAME = "def f(x): return x"


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_run_as_python_runs_it(run, name):
    """The program returns its argument."""
    source, verdict = SOURCES[name]
    assert run(assert_problem("f", source), SAME).verdict is verdict
    if verdict is PASSED:
        assert not run(assert_problem("f", source), "def f(*x): return object()").passed


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("collections.Counter('aab')", {"a": 2, "b": 1}),
        ("collections.namedtuple('P', 'x y')(1, [2])", (1, [2])),
        ("collections.UserList([1, (2,)])", [1, (2,)]),
        ("collections.defaultdict(list, {1: {2}})", {1: {2}}),
        ("__import__('enum').IntEnum('E', 'A B').B", 2),
        ("__import__('fractions').Fraction(3, 2)", 1.5),
        ("__import__('numpy').int64(7)", 7),
        ("__import__('numpy').float64(0.5)", 0.5),
        ("[__import__('numpy').bool_(True)]", [True]),
    ],
)
def test_subclasses_and_exact_numbers_count_as_what_they_equal(run, value, seen):
    program = f"import collections\ndef f(): return {value}"
    source = f"value = f()\nassert value == {seen!r} and type(value) is {type(seen).__name__}"
    assert run(assert_problem("f", source), program).verdict is PASSED
    assert run(assert_problem("f", "assert f() == 'x'"), program).verdict is WRONG


@pytest.mark.parametrize(
    "value",
    ["object()", "(x for x in [1])", "map(int, [])", "len", "{1: object()}", "Ellipsis",
     "{1: 2}.keys()", "__import__('numpy').arange(2)", "__import__('decimal').Decimal('0.1')"],
)  # fmt: skip
def test_what_is_no_plain_data_fails_and_the_next_call_is_answered(value):
    program = f"def f(x): return {value} if x else 0"
    problem = assert_problem("f", "assert f(1) or True", "assert f(0) == 0")
    with Judge(EXECUTION, run_all_tests=True) as judge:
        outcome = judge.submit(problem, program).result()
    assert outcome.results == (WRONG, PASSED)
    assert "returned a value that is not plain data" in outcome.detail


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("x.sort()", [1, 2, 3]),
        ("x.append([4])", [3, 1, 2, [4]]),
        ("x.clear()", []),
        ("x[0] = {1: (2,)}", [{1: (2,)}, 1, 2]),
        ("x = sorted(x)", [3, 1, 2]),
        ("pass", [3, 1, 2]),
    ],
)
def test_changed_arguments_come_back(run, change, left):
    """By position and by name; a set and a dict as well as a list."""
    program = f"def f(x):\n    {change}"
    for call in ("f(x)", "f(x=x)"):
        source = f"x = y = [3, 1, 2]\nassert {call} is None\nassert x == {left!r} and y is x"
        assert run(assert_problem("f", source), program).passed
        wrong = source.replace("assert x ==", "assert x !=")
        assert run(assert_problem("f", wrong), program).verdict is WRONG
    source = "s, d = {1}, {1: 2}\nassert f(s, d) == 3\nassert s == {1, 2} and d == {3: {4}}"
    changing = "def f(s, d):\n    s.add(2); d.clear(); d[3] = {4}\n    return 3"
    assert run(assert_problem("f", source), changing).passed
    assert run(assert_problem("f", source), "def f(s, d): return 3").verdict is WRONG


def test_an_argument_left_with_something_else_inside_fails(run):
    """Otherwise a program could hide so that it has changed it."""
    problem = assert_problem("f", "x = [1]\nf(x)\nassert x == [1]")
    assert run(problem, "def f(x): return 0").passed
    assert run(problem, "def f(x): x.append(object())").verdict is WRONG


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(st.integers() | st.text(max_size=3) | st.floats(0, 2), max_size=1)
        | st.sets(st.integers(0, 7), max_size=3)  # which have one order, however they are filled
        | st.dictionaries(st.integers(0, 3) | st.tuples(st.booleans()), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_plain_data_is_compared_as_in_one_process(judge, data):
    """There and back: an argument, and a value that may be another, equal or not, or its like."""
    argument = data.draw(PLAIN)
    returned = data.draw(st.just(argument) | PLAIN)
    program = f"from math import inf\ndef f(x): return x, {returned!r}"
    source = (
        f"from math import inf\nx, y = f({argument!r})\n"
        f"assert x == {argument!r}\nassert repr(y) == repr({returned!r})"
    )
    outcome = judge.submit(assert_problem("f", source), program).result()
    assert outcome.passed, outcome
    compared = assert_problem(
        "f", f"from math import inf\nassert f({argument!r})[1] == {argument!r}"
    )
    expected = PASSED if returned == argument else WRONG
    assert judge.submit(compared, program).result().verdict is expected


def test_state_of_the_program_lasts_from_call_to_call_and_from_test_to_test(run):
    """As in one process; the names of a test's source are its own."""
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)"
    problem = assert_problem("f", "mine = f(0)\nassert f(5) == 2 and f(6) == 3", "assert f(7) == 4")
    for _ in range(2):
        assert run(problem, program).results == (PASSED, PASSED)
    named = assert_problem("f", "mine = f(0)", "assert f(0) and 'mine' not in globals()")
    assert run(named, SAME.replace("x", "y") + "+ 1").results == (PASSED, PASSED)


def test_a_program_that_ended_is_loaded_anew_for_the_next_test():
    program = (
        "import os\nn = 0\ndef f(x):\n    global n\n    n += 1\n    return n if x else os._exit(3)"
    )
    problem = assert_problem(
        "f", "assert f(1) == 1", "f(0)", "assert f(1) == 1", "assert f(1) == 2"
    )
    with Judge(EXECUTION, run_all_tests=True) as judge:
        outcome = judge.submit(problem, program).result()
    assert outcome.results == (PASSED, CRASHED, PASSED, PASSED)
    with Judge(EXECUTION) as judge:
        assert judge.submit(problem, program).result().results == (PASSED, CRASHED)


def test_many_calls_in_order(run):
    source = "import random\nfor n in range(500):\n    assert f([n], k=str(n)) == (n, str(n))"
    program = "def f(x, k): return x[0], k"
    assert run(assert_problem("f", source), program).passed
    late = "def f(x, k): return x[0], k if x[0] < 499 else 0"
    assert run(assert_problem("f", source), late).verdict is WRONG


def test_large_arguments_and_results(run):
    source = "x = list(range(9000))\nassert f(x) == x and f(list('a' * 500_000)) == 500_000"
    program = "def f(x): return x if len(x) == 9000 else len(x)"
    assert run(assert_problem("f", source), program).passed
    source = "assert f(['a' * 1000] * 20_000) == 1"
    assert run(assert_problem("f", source), "def f(x): return 1").verdict is OUTPUT


def test_time_is_counted_over_all_calls_of_a_test_and_anew_for_the_next(run):
    """In the program's process, and in that of the source; one second of CPU time in each."""
    once, twice = "assert f(0.7)", "assert f(0.7) and f(0.7)"
    assert run(assert_problem("f", once, once), BUSY).results == (PASSED, PASSED)
    assert run(assert_problem("f", twice), BUSY).verdict is SLOW
    busy = BUSY.replace("f(", "busy(")
    once, twice = (f"f(1)\n{busy}{source}".replace("f(0", "busy(0") for source in (once, twice))
    assert run(assert_problem("f", once, once), SAME).results == (PASSED, PASSED)
    outcome = run(assert_problem("f", twice), SAME)
    assert outcome.verdict is SLOW and "the test's source: used more than 1 s" in outcome.detail


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (assert_problem("f"), "it has no tests"),
        (assert_problem("", "assert f(1)"), "call a function, and no entry_point names it"),
        (assert_problem("f g", "assert f g(1)"), "test 1 calls 'f g', which is not the name"),
        (assert_problem("f", "f(1)", "assert g(1)"), r"test 2 never calls 'f': 'assert g\(1\)'"),
        (
            Problem("p", "", (Test("f()", "", "assert"), Test("1", "1", "functional")), "", "f"),
            "tests are of several kinds, assert and functional",
        ),
    ],
)
def test_a_problem_that_cannot_be_judged_is_refused(judge, problem, words):
    with pytest.raises(UserError, match=words):
        judge.submit(problem, SAME)


def test_a_second_worker_that_is_isolated_otherwise_is_not_used():
    with Judge(EXECUTION) as judge:
        judge.submit(assert_problem("f", "f(1)"), SAME).result()
        first = judge._slots[0]
        assert first.source_worker.isolation == judge.isolation
        judge.isolation = {**judge.isolation, "network": "open"}
        with pytest.raises(SandboxError, match="sandboxed differently"):
            judge.submit(assert_problem("f", "f(1)"), SAME).result()


def test_a_second_worker_that_ended_is_replaced():
    """A failure of the judge's own is retried, and not the program's."""
    problem = assert_problem("f", "assert f(1) == 1")
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(problem, SAME).result().passed
        lost = judge._slots[0].source_worker.pid
        os.kill(lost, signal.SIGKILL)
        assert judge.submit(problem, SAME).result().passed
        assert judge.submit(problem, "def f(x): return 2").result().verdict is WRONG
        assert judge._slots[0].source_worker.pid != lost
