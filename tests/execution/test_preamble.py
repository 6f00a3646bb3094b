"""What a program finds when it starts: a prelude or plain Python, and starter code."""

import pytest
from support.execution.judging import assert_problem, stdin_problem

from rlif_jax.problem import Problem, Test, Verdict

PASSED, WRONG, CRASHED = Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR

FORGOTTEN = {
    "module": ("return math.hypot(3, 4)", "name 'math' is not defined"),
    "function": ("return sqrt(25)", "name 'sqrt' is not defined"),
    "class": ("return len(deque(range(5)))", "name 'deque' is not defined"),
    "type": ("x: List = []\n    return len(List) or 5", "name 'List' is not defined"),
    "constant": ("return 5 if inf else 0", "name 'inf' is not defined"),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_the_prelude_is_for_the_kinds_of_test_that_livecodebench_has(run, name):
    body, words = FORGOTTEN[name]
    outcome = run(assert_problem("f", "assert f() == 5"), f"def f():\n    {body}")
    assert outcome.verdict is CRASHED and words in outcome.detail, outcome
    if name != "type":
        code = f"def f():\n    {body}"
        called = Problem("p", "", (Test("", "5", "functional"),), entry_point="f")
        assert run(called, code).passed
        assert run(stdin_problem(("", "5")), f"{code}\nprint(int(f()))").passed


def test_a_program_does_not_see_what_the_source_of_its_test_imports(run):
    """As with EvalPlus, where a program is run by itself; the two sides are two processes here."""
    source = "import math\nassert math.isclose(f(2.0), 2 ** 0.5)"
    assert run(assert_problem("f", source), "def f(x): return math.sqrt(x)").verdict is CRASHED
    assert run(
        assert_problem("f", source), "def f(x):\n    import math\n    return math.sqrt(x)"
    ).passed
    missing = assert_problem("f", "assert math.isclose(f(2.0), 2 ** 0.5)")
    outcome = run(missing, "import math\nf = math.sqrt")
    assert outcome.verdict is WRONG and "raised NameError: name 'math'" in outcome.detail


def test_limits_are_those_of_a_new_interpreter_in_assert_tests(run):
    deep = "def f(n): return n and 1 + f(n - 1)"
    problem = assert_problem("f", "assert f(3000) == 3000")
    assert run(problem, deep).verdict is CRASHED
    assert run(problem, f"import sys\nsys.setrecursionlimit(9000)\n{deep}").passed
    digits = assert_problem("f", "assert f(5000) == 5000")
    long = "def f(n): return len(str(10 ** (n - 1)))"
    assert run(digits, long).verdict is CRASHED
    nested = "x = (1,)\nfor _ in range(2000): x = (x, 2)\nassert f(x) is not None"
    assert run(assert_problem("f", nested), "def f(x): return [x]").passed
    called = Problem("p", "", (Test("5000", "5000", "functional"),), entry_point="f")
    assert run(called, deep).passed and run(called, long).passed


STARTER = """import math as maths
SHIFT = 2

def helper(x): return x + SHIFT

def f(x: int) -> int:
    \"\"\"Add two.\"\"\"
"""


def test_what_the_starter_code_has_before_the_function_is_there_for_both_sides(run):
    problem = assert_problem("f", "assert f(1) == helper(1) == 3", starter_code=STARTER)
    assert run(problem, "def f(x): return maths.floor(helper(x))").passed
    assert run(problem, STARTER + "    return helper(x)").passed
    assert run(problem, "from __future__ import annotations\ndef f(x: Missing): return 3").passed
    # The source keeps the problem's own helper, whatever the program calls by that name.
    assert run(problem, "def helper(x): return 9\ndef f(x): return helper(x)").verdict is WRONG
    # The function itself is the program's: there is none without it.
    assert run(problem, "def g(x): return 3").verdict is CRASHED
    broken = assert_problem("f", "assert f(1) == 3", starter_code="import (\n\ndef f(x):\n")
    assert run(broken, "def f(x): return 3").passed


NODE = """class Node:
    def __init__(self, left=None, right=None):
        self.left, self.right = left, right
"""
DEPTH = """class Solution:
    def depth(self, spec):
        build = lambda s: Node(*map(build, s))
        height = lambda node: 1 + max(map(height, filter(None, vars(node).values())), default=0)
        return height(build(spec))
"""
OPEN = "class Solution:\n    def depth(self, spec: List) -> int:\n        "
HEADS = {
    "class before": f"{NODE}\n{OPEN}",
    "decorator before": f"{NODE}\n@total_ordering\n{OPEN}",
    "function instead": f"{NODE}\ndef depth(spec):\n",
    "another name": f"{NODE}\ndef deepest(spec",
    "finished": f"{NODE}\n{OPEN}pass\n",
    "comment": f"# Given:\n{NODE}# And:\n\n{OPEN}",
    "something fails": f"import nowhere\nraise SystemExit(3)\nx = 1 / 0\n{NODE}\n{OPEN}",
    "future": f'"""Given."""\nfrom __future__ import annotations\n{NODE}\nx: Missing = 0\n{OPEN}',
}


@pytest.mark.parametrize("name", HEADS)
def test_functional_tests_have_the_starter_code_before_the_function_too(run, name):
    def problem(starter_code: str, kind: str) -> Problem:
        tests = {
            "functional": (Test("[[[], []]]", "3", "functional"), Test("[]", "1", "functional")),
            "assert": (Test("assert depth([[[], []]]) == 3 and depth([]) == 1", "", "assert"),),
        }
        return Problem("tree", "", tests[kind], starter_code, "depth")

    for kind in ("functional", "assert"):
        given = problem(HEADS[name], kind)
        assert run(given, DEPTH).passed
        own = "class Node:\n    def __init__(self, *below): self.a, self.b = (*below, 0, 0)[:2]\n"
        assert run(given, own + DEPTH).passed
        assert run(given, "class Solution: pass").verdict is CRASHED
        bare = run(problem(OPEN, kind), DEPTH)
        assert bare.verdict is CRASHED and "name 'Node' is not defined" in bare.detail


def test_nothing_of_the_starter_code_is_taken_for_the_function(run):
    """Not even one of its name that is imported there, nor a class Solution."""
    starter = "from math import gcd\nSolution = type('Solution', (), {'gcd': gcd})\n"
    for kind, test in (
        ("functional", Test("4\n6", "2", "functional")),
        ("assert", Test("assert gcd(4, 6) == 2", "", "assert")),
    ):
        problem = Problem(kind, "", (test,), starter, "gcd")
        outcome = run(problem, "def other(): pass")
        assert outcome.verdict is CRASHED
        assert "the program defines no function 'gcd'" in outcome.detail
        right = "def gcd(a, b): return gcd(b, a % b) if b else a"
        assert run(problem, right).passed


def test_starter_code_of_whole_programs_is_not_run(run):
    """It would read the input before the program does."""
    starter = "n = int(input())\n# print its double\n"
    problem = Problem("p", "", (Test("4\n", "8\n", "stdin"),), starter)
    assert run(problem, "print(2 * int(input()))").passed


def test_a_mere_body_goes_on_the_starter_code(run):
    starter = 'import math\n\ndef f(x: float) -> float:\n    """Root."""\n'
    problem = assert_problem("f", "assert f(4) == 2", starter_code=starter)
    assert run(problem, "    return math.sqrt(x)").passed
    assert run(problem, "\n  # root\n\n    return math.sqrt(x)\n\ndef other(): pass").passed
    assert run(problem, "    # a comment\nf = math.sqrt").passed
    assert run(problem, " return 2").verdict is Verdict.COMPILE_ERROR
    assert run(assert_problem("f", "assert f(4)"), "    return 2").verdict is Verdict.COMPILE_ERROR
    method = Problem("m", "", (Test("4", "2.0", "functional"),), OPEN.replace("depth", "f"), "f")
    assert run(method, "        return spec ** 0.5").passed
