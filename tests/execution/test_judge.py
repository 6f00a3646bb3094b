"""Verdicts on honest programs, right and wrong, of both kinds."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.execution.judging import EXECUTION, function_problem, stdin_problem

from rlif_jax import config, judgeable
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge, SandboxError
from rlif_jax.problem import Problem, Test, Verdict

SUM = stdin_problem(("2\n3 4\n", "7\n"), ("3\n1 1 1\n", "3\n"))
ADD = function_problem("add", ("1\n2", "3"), ("[1]\n[2]", "[1, 2]"))

# Every way to read an input that a process of its own would have.
READERS = {
    "input": "n = int(input())\nprint(sum(map(int, input().split())))",
    "read": "import sys\nprint(sum(map(int, sys.stdin.read().split()[1:])))",
    "iterate": "import sys\nnext(sys.stdin)\nfor l in stdin: print(sum(map(int, l.split())))",
    "mixed": "import sys\ninput()\nprint(sum(map(int, sys.stdin.read().split())))",
    "from_import": "from sys import stdin as i\nnext(i)\nprint(sum(map(int, i.read().split())))",
    "prelude_stdin": "stdin.readline()\nstdout.write(str(sum(map(int, stdin.readline().split()))))",
    "buffer": "import sys\nr = sys.stdin.buffer.readline\nr()\nprint(sum(map(int, r().split())))",
    "open0": "print(sum(map(int, open(0).read().split()[1:])))",
    "dev_stdin": "print(sum(map(int, open('/dev/stdin').readlines()[1].split())))",
    "fstat": "import os\nb = os.read(0, os.fstat(0).st_size)\nprint(sum(map(int, b.split()[1:])))",
    "wrapper": "import sys\nsys.stdin = TextIO = io.TextIOWrapper(sys.stdin.buffer)\ninput()\n"
    "print(sum(map(int, input().split())))",
}
# Every way to write an answer.
WRITERS = {
    "print": "print(s)",
    "buffer": "import sys\nsys.stdout.buffer.write(b'%d' % s)",
    "os_write": "import os\nos.write(1, b'%d' % s)",
    "open1": "out = open(1, 'w')\nout.write(str(s))",
    "dev_stdout": "open('/dev/stdout', 'w').write(str(s))",
    "atexit": "import atexit\natexit.register(lambda: print(s))",
    "replaced": "sys.stdout = io.TextIOWrapper(open(1, 'wb', closefd=False))\nprint(s)",
    "del": "class A:\n    def __del__(self): print(s)\na = A()",
    "cycle": "class A: pass\na = A(); a.a = a; a.f = open(1, 'w'); a.f.write(str(s))",
    "global_file": "out = open(1, 'w', closefd=False)\ndef f(): out.write(str(s))\nf()",
    "thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print(s))).start()",
    "fork": "import os\nif os.fork() == 0:\n    print(s, flush=True)\n    os._exit(0)\nos.wait()",
    "sys_exit_1": "import sys\nprint(s)\nsys.exit(1)",
    "exit_text": "print(s)\nexit('bye')",
    "return": "print(s)\nreturn",
    "nonlocal": "def f():\n    nonlocal s\n    s += 0\nf()\nprint(s)",
    "exit": "print(s)\nexit()",
    "quit": "print(s)\nquit()",
    "quit_text": "def main():\n    print(s)\n    quit('bye')\nmain()",
    "sys_exit_0": "import sys\nprint(s)\nsys.exit(0)",
    "os_exit_0": "import os\nprint(s, flush=True)\nos._exit(0)",
    "main_guard": "def main(): print(s)\nif '__main__' == __name__: main()",
    "future": "from __future__ import annotations\ndef f(x: Missing): print(x)\nf(s)",
    "globals": "globals()['t'] = s\ndef f():\n    global t\n    t += 0\nf()\nprint(t)",
}


@pytest.mark.parametrize("code", READERS.values(), ids=READERS)
def test_every_way_to_read(run, code):
    outcome = run(SUM, code)
    assert outcome.results == (Verdict.PASSED,) * 2, outcome.detail


@pytest.mark.parametrize("code", WRITERS.values(), ids=WRITERS)
def test_every_way_to_write(run, code):
    reads = "input()\ns = sum(map(int, input().split()))\n"
    if code.startswith("from __future__"):
        first, _, code = code.partition("\n")
        reads = first + "\n" + reads
    outcome = run(SUM, reads + code)
    assert outcome.passed, outcome.detail
    assert run(SUM, reads + "s += 1\n" + code).verdict is Verdict.WRONG_ANSWER


OWN_WRITERS = {
    "one stream": "sys.stdout = W(sys.stdout)\nprint(42)",
    "never flushed": "sys.stdout = W(sys.__stdout__)\nsys.stdout.write('4')\nprint(2)",
    "collected": (
        "class C:\n    def __init__(self): self.kept = ''\n"
        "    def write(self, text): self.kept += text\n"
        "    def flush(self): sys.__stdout__.write(self.kept); self.kept = ''\n"
        "sys.stdout = C()\nprint(42)"
    ),
    "deleted": "print(42)\ndel sys.stdout",
    "none": "print(42)\nsys.stdout = None",
}


@pytest.mark.parametrize("code", OWN_WRITERS.values(), ids=OWN_WRITERS)
def test_a_program_may_have_a_standard_output_of_its_own(run, code):
    """It need not be a whole file: CPython, too, ends well with one that has no `closed`."""
    writer = (
        "class W:\n    def __init__(self, out): self.out = out\n"
        "    def write(self, text): self.out.write(text)\n    def flush(self): self.out.flush()\n"
    )
    outcome = run(stdin_problem(("x", "42")), writer + code)
    assert outcome.passed, outcome
    broken = "print(42)\nclass B:\n    def flush(self): 1 / 0\nsys.stdout = B()"
    assert run(stdin_problem(("x", "42")), broken).verdict is Verdict.RUNTIME_ERROR


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[0.0] * 100_000", "[" + ",".join(["0"] * 100_000) + "]"),
        ("[False] * 100_000", "[" + ",".join(["0"] * 100_000) + "]"),
        ("'é' * 100_000", '"' + "é" * 100_000 + '"'),
    ],
)
def test_a_right_answer_may_be_longer_than_the_expected_one(body, expected):
    problem = function_problem("f", ("1", expected))
    with Judge(replace(EXECUTION, output_kb=1, time_limit_s=5.0, memory_mb=256)) as judge:
        outcome = judge.submit(problem, f"def f(x): return {body}").result()
        assert outcome.passed, outcome
        flood = judge.submit(problem, f"def f(x): return [{body}] * 9").result()
        assert flood.verdict is Verdict.OUTPUT_LIMIT


@pytest.mark.parametrize(
    ("ending", "verdict"),
    [
        ("1 / 0", Verdict.RUNTIME_ERROR),
        ("import subprocess; subprocess.run(['/bin/true'])", Verdict.RUNTIME_ERROR),
        ("import os; sys.stdout.flush(); os._exit(3)", Verdict.RUNTIME_ERROR),
        ("import os; sys.stdout.flush(); os.kill(os.getpid(), 15)", Verdict.RUNTIME_ERROR),
        ("import os; sys.stdout.flush(); os.abort()", Verdict.RUNTIME_ERROR),
        ("raise KeyboardInterrupt", Verdict.RUNTIME_ERROR),
        ("import os; os.close(1)", Verdict.RUNTIME_ERROR),
        ("import time; sys.stdout.flush(); time.sleep(60)", Verdict.TIME_LIMIT),
        ("sys.stdout.flush()\nwhile True: pass", Verdict.TIME_LIMIT),
        ("b = bytearray(1 << 30)", Verdict.MEMORY_LIMIT),
        ("sys.stdout.write(' ' * 10**6)", Verdict.OUTPUT_LIMIT),
        ("while True: print(' ' * 1000)", Verdict.OUTPUT_LIMIT),
    ],
)
def test_the_right_answer_does_not_excuse_a_bad_end(run, ending, verdict):
    outcome = run(stdin_problem(("x", "42")), f"print(42)\n{ending}")
    assert outcome.verdict is verdict, outcome.detail
    assert outcome.results == (verdict,)


@pytest.mark.parametrize(
    "code",
    ["def f(:", "x = '\0'", "print(1)\n  print(2)", "'\ud800'", "\ufeffprint(7)", "break"],
)
def test_what_does_not_compile(run, code):
    outcome = run(SUM, code)
    assert outcome.verdict is Verdict.COMPILE_ERROR
    assert outcome.results == (Verdict.COMPILE_ERROR,)
    assert run(ADD, code).verdict is Verdict.COMPILE_ERROR


@pytest.mark.parametrize("code", [None, "", " \n\t"])
def test_no_code(run, code):
    outcome = run(SUM, code)
    assert outcome.verdict is Verdict.NO_CODE
    assert (outcome.results, outcome.tests_total, outcome.fraction_passed) == ((), 2, 0.0)


def test_the_prelude_ends_with_modules_and_builtins(run):
    code = (
        "assert pow(2, 3, 5) == 3 and sum([1, 2]) == 3\n"
        "assert datetime.datetime.now and bisect.bisect_left and random.random and copy.copy\n"
        "assert deque and Counter and lru_cache and List and inf and reduce and itemgetter\n"
        "assert sys.getrecursionlimit() == 50000\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "print(depth(40000), len(str(10**20000)), __name__, *sys.argv)\n"
    )
    assert run(stdin_problem(("", "40000 20001 __main__ solution.py")), code).passed


def test_without_run_all_tests_the_first_failure_ends_it(run):
    problem = stdin_problem(("1", "1"), ("2", "0"), ("3", "3"))
    outcome = run(problem, "print(input())")
    assert outcome.results == (Verdict.PASSED, Verdict.WRONG_ANSWER)
    assert outcome.verdict is Verdict.WRONG_ANSWER
    assert outcome.fraction_passed == pytest.approx(1 / 3)
    assert outcome.detail == r"test 2: printed '2\n', expected '0'"
    with Judge(EXECUTION, run_all_tests=True) as thorough:
        outcome = thorough.submit(problem, "print(input())").result()
    assert outcome.results == (Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.PASSED)
    assert outcome.verdict is Verdict.WRONG_ANSWER
    assert outcome.fraction_passed == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "code",
    [
        "class Solution:\n    def add(self, a, b): return a + b",
        "class Solution:\n    @staticmethod\n    def add(a, b): return a + b",
        "class Base:\n    def add(self, a, b): return a + b\nclass Solution(Base): pass",
        "def add(a, b): return a + b  # no class Solution",
        "class Solution2: pass\nadd = lambda a, b: a + b",
        "class Solution:\n    def __init__(self): self.add = lambda a, b: a + b",
        "class Solution: pass\ndef add(a, b): return a + b",
        "from operator import add",
        "from operator import concat as c, add as add",
        "def add(a, b): return a + b\nprint('3')\nif __name__ == '__main__': raise SystemExit(1)",
        "exec('def add(a, b): return a + b')",
    ],
)
def test_functions_that_pass(run, code):
    outcome = run(ADD, code)
    assert outcome.results == (Verdict.PASSED,) * 2, outcome.detail


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("class Solution:\n    def add(self, a, b): return a - b", Verdict.WRONG_ANSWER),
        ("pass  # the prelude has an add of its own", Verdict.RUNTIME_ERROR),
        ("def mul(a, b): return add(a, b)", Verdict.RUNTIME_ERROR),
        ("class Solution:\n    def mul(self, a, b): return a + b", Verdict.RUNTIME_ERROR),
        ("class Solution:\n    def add(self, a): return 3", Verdict.RUNTIME_ERROR),
        ("def add(a, b): print(a + b)", Verdict.WRONG_ANSWER),
        ("def add(a, b): return a + b\nexit()", Verdict.RUNTIME_ERROR),
        ("def add(a, b): exit()", Verdict.RUNTIME_ERROR),
        ("import os\ndef add(a, b): os._exit(0)", Verdict.RUNTIME_ERROR),
        ("n = input()\ndef add(a, b): return a + b", Verdict.RUNTIME_ERROR),
        ("def add(a, b):\n    while True: pass", Verdict.TIME_LIMIT),
        ("def add(a, b): return [0] * 10**9", Verdict.MEMORY_LIMIT),
        ("def add(a, b): return 'x' * 10**6", Verdict.OUTPUT_LIMIT),
        ("def add(a, b): return add(a, b)", Verdict.RUNTIME_ERROR),
    ],
)
def test_functions_that_fail(run, code, verdict):
    outcome = run(ADD, code)
    assert outcome.results == (verdict,), outcome.detail


@pytest.mark.parametrize(
    ("value", "expected", "verdict"),
    [
        ("((1, 2), [(3,)])", "[[1, 2], [[3]]]", Verdict.PASSED),
        ("{'a': (1,)}", '{"a": [1]}', Verdict.PASSED),
        ("{1: 2}", '{"1": 2}', Verdict.PASSED),
        ("Counter('aab')", '{"a": 2, "b": 1}', Verdict.PASSED),
        ("True", "1", Verdict.PASSED),
        ("4 / 2", "2", Verdict.PASSED),
        ("0.1 + 0.2", "0.3", Verdict.WRONG_ANSWER),
        ("0.1 + 0.2", "0.30000000000000004", Verdict.PASSED),
        ("__import__('fractions').Fraction(3, 2)", "1.5", Verdict.PASSED),
        ("__import__('decimal').Decimal('0.1')", "0.1", Verdict.WRONG_ANSWER),
        ("complex(3, 0)", "3", Verdict.PASSED),
        ("None", "null", Verdict.PASSED),
        ("None", "0", Verdict.WRONG_ANSWER),
        ("7 * 10**9000 + 1", "7" + "0" * 8999 + "1", Verdict.PASSED),
        ("10**60000", "1", Verdict.WRONG_ANSWER),
        ("float('nan')", "NaN", Verdict.WRONG_ANSWER),
        ("float('inf')", "Infinity", Verdict.PASSED),
        ("{1, 2}", "[1, 2]", Verdict.WRONG_ANSWER),
        ("(i for i in [1])", "[1]", Verdict.WRONG_ANSWER),
        ("{(1, 2): 3}", "{}", Verdict.WRONG_ANSWER),
        ("b'x'", '"x"', Verdict.WRONG_ANSWER),
        ("reduce(lambda a, _: [a], range(30000), 1)", "[1]", Verdict.WRONG_ANSWER),
        ("(lambda a: a.append(a) or a)([])", "[]", Verdict.WRONG_ANSWER),
        ("'\\ud800\\n\\u2028'", '"\\ud800\\n\\u2028"', Verdict.PASSED),
    ],
)
def test_values_of_all_kinds(run, value, expected, verdict):
    outcome = run(function_problem("f", ("", expected)), f"def f(): return {value}")
    assert outcome.results == (verdict,), outcome.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(JSON)
def test_any_value_survives_the_way_there_and_back(judge, value):
    import json

    problem = function_problem("f", (json.dumps(value), json.dumps(value)))
    outcome = judge.submit(problem, "def f(x): return x").result(timeout=60)
    assert outcome.passed, outcome.detail
    changed = judge.submit(problem, "def f(x): return [x]").result(timeout=60)
    assert changed.verdict is Verdict.WRONG_ANSWER


def test_nothing_carries_over_between_runs_of_a_whole_program(run):
    code = (
        "import os, math\nmath.seen = getattr(math, 'seen', 0) + 1\n"
        "n = len(os.listdir('.'))\nopen('left', 'w').write('x')\nos.mkdir('d')\n"
        "print(math.seen + n)"
    )
    assert run(stdin_problem(("", "1"), ("", "1"), ("", "1")), code).passed


def test_state_carries_over_between_calls_of_a_function_but_not_between_programs(run):
    """One instance serves all tests, as officially; each program starts anew."""
    state = "class Solution:\n    s = []\n    def f(self): self.s.append(1); return len(self.s)"
    for _ in range(2):
        assert run(function_problem("f", ("", "1"), ("", "2"), ("", "3")), state).passed


def test_verdicts_repeat(run):
    """Hash order and random numbers are fixed, so a verdict does not depend on luck."""
    code = "print(hash('judge'), list(set('abcdefgh')), random.random())"
    details = {run(stdin_problem(("", "?")), code).detail for _ in range(4)}
    with Judge(EXECUTION) as other:
        details.add(other.submit(stdin_problem(("", "?")), code).result().detail)
    assert len(details) == 1


def test_the_tighter_time_limit_counts():
    busy = "t = __import__('time').process_time\nwhile t() < 0.6: pass\nprint(1)"
    tight = Problem("tight", "", (Test("", "1", "stdin"),), time_limit_s=0.3)
    loose = Problem("loose", "", (Test("", "1", "stdin"),), time_limit_s=60.0)
    with Judge(config.Execution(workers=1, time_limit_s=1.5)) as judge:
        assert judge.submit(tight, busy).result().verdict is Verdict.TIME_LIMIT
        assert judge.submit(loose, busy).result().verdict is Verdict.PASSED
        assert judge.submit(loose, busy.replace("0.6", "9")).result().verdict is Verdict.TIME_LIMIT


def test_a_long_expected_output_fits(run):
    answer = "x" * 200_000
    assert run(stdin_problem(("", answer)), "print('x' * 200_000)").passed
    assert run(stdin_problem((answer, "200000")), "print(len(input()))").passed


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (stdin_problem(), "'stdin' cannot be judged: it has no tests"),
        (function_problem("", ("1", "1")), "no entry_point names it"),
        (
            function_problem("f", ("1", "abc")),
            "test 1 of the function 'f' has 'abc', which is",
        ),
        (function_problem("f", ("1", "1"), ("[", "1")), r"test 2 of the function 'f' has '\['"),
        (Problem("kind", "", (Test("", "", "interactive"),)), "kind 'interactive'"),
    ],
)
def test_a_problem_that_cannot_be_judged_is_refused(judge, problem, words):
    with pytest.raises(UserError, match=words):
        judge.submit(problem, "pass")


def test_a_problem_is_checked_once_however_many_programs_come(judge, monkeypatch):
    """Another problem that is equal is another one; so is a later one at the same address."""
    parsed = []
    monkeypatch.setattr(judgeable, "json_error", lambda text: parsed.append(text))

    def problem():
        return function_problem("f", *((str(n), f"[{n}]") for n in range(50)))

    first, second = problem(), problem()
    for each in (first, second):
        judge.check(each)
    futures = [judge.submit(first, "def f(n): return [n]") for _ in range(5)]
    assert all(future.result().passed for future in futures)
    assert judge.submit(second, None).result().verdict is Verdict.NO_CODE
    assert len(parsed) == 2 * 100
    del first, second
    for _ in range(3):
        judge.submit(problem(), None)
    assert len(parsed) == 5 * 100


def test_a_worker_that_is_isolated_otherwise_is_not_used():
    """What was checked at the start, and recorded, holds for every worker that comes later."""
    with Judge(EXECUTION) as judge:
        assert judge.submit(SUM, READERS["input"]).result().passed
        judge.isolation = {**judge.isolation, "network": "open"}
        with pytest.raises(
            SandboxError, match=r"sandboxed differently \(.*network: none.*network: open"
        ):
            judge.submit(SUM, READERS["input"]).result()


def test_answers_are_kept_where_all_tests_are_run_and_only_there():
    """The keys say which programs agree, whatever the expected outputs are."""
    problem = stdin_problem(("1", "nobody knows"), ("2", "nobody knows"))
    codes = ("print(int(input()) / 2)", "print(f'{int(input()) * 5}e-1')", "print(input())")
    crashing = "n = int(input())\nprint(n / 2 if n < 2 else n / 0)"
    with Judge(EXECUTION, run_all_tests=True) as judge:
        futures = [judge.submit(problem, code) for code in (*codes, crashing, None)]
        first, second, third, crashed, none = [future.result().answers for future in futures]
    assert first == second
    assert None not in first
    assert all(a != b for a, b in zip(first, third, strict=True))
    assert crashed == (first[0], None)
    assert none == ()
    with Judge(EXECUTION) as judge:
        assert judge.submit(problem, codes[0]).result().answers == ()
