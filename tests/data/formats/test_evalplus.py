"""HumanEval+ and MBPP+ in each published form: all inputs are asked, by EvalPlus's rules."""

import ast

import pytest

from rlif_jax import config
from rlif_jax.data.formats.detect import problem_from_any
from rlif_jax.data.formats.evalplus import INPUTS_PER_TEST, evalplus_tests
from rlif_jax.data.formats.livecodebench import problem_from_row, row_from_problem
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Verdict

PASSED, WRONG = Verdict.PASSED, Verdict.WRONG_ANSWER

HEAD = 'from typing import List\n\n\ndef largest(numbers: List[int], n: int):\n    """The n."""\n'
BODY = "    return sorted(numbers)[-n:][::-1]\n"
BASE = [[[1, 2, 3], 2], [[5], 1]]
PLUS = [[[n, 2 * n, -n], 1 + n % 3] for n in range(60)]
HELPERS = """
import numpy as np

def assertion(out, exp, atol):
    exact_match = out == exp
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match
"""
PLAIN_HUMANEVAL = {
    "task_id": "HumanEval/500",
    "prompt": HEAD,
    "entry_point": "largest",
    "canonical_solution": BODY,
    "contract": "\n    assert n > 0\n",
    "base_input": BASE,
    "plus_input": PLUS,
    "atol": 0,
}
PLAIN_MBPP = PLAIN_HUMANEVAL | {
    "task_id": "Mbpp/5000",
    "prompt": '"""\nFind the n largest.\nassert largest([1, 2, 3], 2) == [3, 2]\n"""\n',
    "canonical_solution": f"\n{HEAD.replace('List[int]', 'list')}{BODY}",
    "assertion": "\nassert largest([1, 2, 3], 2) == [3, 2]\nassert largest([5], 1) == [5]\n",
}
RESULTS = [sorted(numbers)[-n:][::-1] for numbers, n in BASE + PLUS]
LOOP = "for given, exp in zip(inputs, results):\n    assertion({}(*given), exp, 0)\n"
SOURCE = f"{HELPERS}\ninputs = {BASE + PLUS}\nresults = {RESULTS}\n{LOOP.format('largest')}"
CHECK = f"{HELPERS}\ndef check(candidate):\n    inputs = {BASE + PLUS}\n    results = {RESULTS}\n"
CHECK += "".join(f"    {line}\n" for line in LOOP.format("candidate").splitlines())
BASE_CHECK = "def check(candidate):\n    assert candidate([1, 2, 3], 2) == [3, 2]\n"
HUB_MBPP = {
    "task_id": 5000,
    "code": PLAIN_MBPP["canonical_solution"],
    "prompt": "Find the n largest.",
    "source_file": "",
    "test_imports": [],
    "test_list": ["assert largest([1, 2, 3], 2) == [3, 2]", "assert largest([5], 1) == [5]"],
    "test": SOURCE,
}
FORMS = {  # each with the number of its tests that a table of the base inputs' results passes
    "HumanEval+": (PLAIN_HUMANEVAL | {"test": BASE_CHECK}, 2),
    "HumanEval+ mini": (PLAIN_HUMANEVAL, 1),
    "HumanEval+ on the Hub": (
        {name: PLAIN_HUMANEVAL[name] for name in ("task_id", "prompt", "entry_point")}
        | {"canonical_solution": BODY, "test": CHECK},
        0,
    ),
    "MBPP+": (PLAIN_MBPP, 1),
    "MBPP+ on the Hub": (HUB_MBPP, 2),
    "MBPP base": (  # the table knows the input of test_list alone
        PLAIN_MBPP
        | {"task_id": 5000, "prompt": "'''\nFind the n largest.\n'''", "plus_input": None}
        | {"test_list": HUB_MBPP["test_list"][:1], "base_input": [*BASE, [[7], 1]]},
        1,
    ),
}
LOOKUP = """
def largest(numbers, n):
    return {(1, 2, 3): [3, 2], (5,): [5]}.get(tuple(numbers))
"""
CHANGING = """
def largest(numbers, n):
    numbers.sort(reverse=True)
    del numbers[n:]
    return numbers
"""


@pytest.fixture(scope="module")
def judge():
    with Judge(config.Execution(workers=2), run_all_tests=True) as judge:
        yield judge


def judged(judge: Judge, row: dict, code: str) -> Outcome:
    return judge.submit(problem_from_any(row), code).result(timeout=60)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_asks_more_than_the_base_inputs(judge, form):
    row, known = FORMS[form]
    problem = problem_from_any(row)
    assert judged(judge, row, problem.metadata["solution"]).verdict is PASSED
    assert judged(judge, row, CHANGING).verdict is PASSED
    outcome = judged(judge, row, LOOKUP)
    assert outcome.verdict is WRONG
    assert outcome.results.count(PASSED) == known
    assert problem_from_row(row_from_problem(problem)) == problem


def test_prompts_are_those_of_humaneval_and_mbpp():
    assert problem_from_any(PLAIN_HUMANEVAL).starter_code == HEAD
    plain, hub = problem_from_any(PLAIN_MBPP), problem_from_any(HUB_MBPP)
    asked = "Find the n largest.\n\nYour code should pass these tests:\n"
    assert plain.prompt == asked + HUB_MBPP["test_list"][0]
    assert hub.prompt == asked + "\n".join(HUB_MBPP["test_list"])
    assert plain.starter_code == hub.starter_code == ""
    assert [plain.entry_point, hub.entry_point] == ["largest"] * 2
    assert all(test.private for test in plain.tests)
    assert [test.private for test in hub.tests] == [False, False, True]


def test_inputs_in_tests_of_a_few(judge):
    """So that a limit for a test is one for a few calls; the detail names the input."""
    count = 2 * INPUTS_PER_TEST + 1
    row = PLAIN_HUMANEVAL | {"plus_input": [[[n], 1] for n in range(count)]}
    tests = problem_from_any(row).tests
    assert len(tests) == 4
    given = [ast.literal_eval(test.input.split("INPUTS = ")[1].split("\n")[0]) for test in tests]
    assert given[0] == BASE
    assert [arguments for several in given[1:] for arguments in several] == row["plus_input"]
    assert max(map(len, given)) == INPUTS_PER_TEST
    last = f"    if numbers == [{count - 1}]:\n        return [0]\n"
    wrong = f"def largest(numbers, n):\n{last}{BODY}"
    outcome = judged(judge, row, wrong)
    assert outcome.results == (PASSED, PASSED, PASSED, WRONG)
    assert outcome.detail.endswith(f"plus_input, element {count}")


def test_a_function_may_have_any_name(judge):
    """Also one that the source of its test uses itself."""
    for name in ("right", "math", "reference", "copy", "REFERENCE", "CANDIDATE", "number"):
        code = f"def {name}(x):\n    return x + 1\n"
        row = PLAIN_MBPP | {"entry_point": name, "canonical_solution": code, "base_input": [[3]]}
        row |= {"plus_input": [[4]], "assertion": ""}
        assert judged(judge, row, code).verdict is PASSED
        assert judged(judge, row, code.replace("1", "2")).verdict is WRONG


RULES = {
    "exact": ("f", [3, "a"], 0, "return x", {"return x": PASSED, "return [x]": WRONG}),
    "floats": (
        *("f", [1.0, 1e9], 0, "return x"),
        {"return x + 9e-7": PASSED, "return x + (2e-6 if x == 1 else 0)": WRONG},
    ),
    "relative": ("f", [1e9], 0, "return x", {"return x + 99": PASSED, "return x + 101": WRONG}),
    "floats in a list": (
        *("f", [1.0], 0, "return [x, 2.0]"),
        {"return [x, 2.0 + 9e-7]": PASSED, "return (x, 2.0 + 9e-7)": WRONG, "return [x]": WRONG},
    ),
    "one is no float": (
        *("f", [1.0], 0, "return [x, 2]"),
        {"return [x, 2.0]": PASSED, "return [x + 9e-7, 2]": WRONG},
    ),
    "atol": (
        *("f", [1.0], 1e-3, "return [x, [2, x]]"),
        {"return [x, [2.0009, x]]": PASSED, "return [x, [2.0011, x]]": WRONG},
    ),
    "type": ("f", [3], 1e-3, "return x", {"return x + 0.0": PASSED, "return x + 1e-4": WRONG}),
    "infinite": ("f", [1.0], 0, "return x / 1e-320", {"return x": WRONG, "return inf": PASSED}),
    "not numbers": ("f", ["a"], 1e-3, "return [x, 1.0]", {"return ['b', 1.0]": WRONG}),
    "set": (
        *("similar_elements", [3], 0, "return (x, 2)"),
        {"return [2, x, x]": PASSED, "return (x,)": WRONG, "return x": WRONG},
    ),
    "not None": (
        *("check_str", ["ab", "cd"], 0, "import re\n    return re.search('a', x)"),
        {
            "import re\n    return re.match('a', x)": PASSED,
            "return 'a' in x": PASSED,
            "return True": WRONG,
            "return 'yes'": WRONG,
        },
    ),
    "or True": (
        *("are_equivalent", [3, 4], 0, "return x == 3"),
        {"return x == 3": PASSED, "return True": PASSED, "return False": WRONG, "return 1": WRONG},
    ),
    "or 0": (
        *("sum_div", [3, 4], 0, "return x"),
        {"return x": PASSED, "return 0": PASSED, "return 1": WRONG},
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_of_comparison(judge, name):
    function, inputs, atol, reference, programs = RULES[name]
    head = f"from math import inf\ndef {function}(x):\n    "
    row = PLAIN_MBPP | {"entry_point": function, "canonical_solution": head + reference}
    row |= {"base_input": [[x] for x in inputs], "plus_input": [], "atol": atol}
    for program, verdict in {reference: PASSED, **programs}.items():
        assert judged(judge, row, head + program).verdict is verdict, program


def test_rules_of_two_arguments(judge):
    """The pyramid's own height, and digits compared one with another."""
    slant = "def surface_Area(b, s): return b * b + 2 * b * s"
    height = "def surface_Area(b, h): return round(b * b + 2 * b * ((b / 2) ** 2 + h * h) ** 0.5)"
    row = PLAIN_MBPP | {"entry_point": "surface_Area", "canonical_solution": slant}
    row |= {"base_input": [[3, 4], [10, 9]], "plus_input": []}
    assert judged(judge, row, height).verdict is PASSED
    assert judged(judge, row, height.replace("round", "1 + round")).verdict is WRONG
    digits = "def digit_distance_nums(a, b): return {}"
    row |= {"entry_point": "digit_distance_nums", "canonical_solution": digits.format("a - b")}
    row |= {"base_input": [[123, 56]]}
    assert judged(judge, row, digits.format("1 + 3 + 3")).verdict is PASSED
    assert judged(judge, row, digits.format("67")).verdict is PASSED
    assert judged(judge, row, digits.format("6")).verdict is WRONG


def test_a_zero_is_judged_by_the_polynomial(judge):
    """By its value at the result, not by the distance from the reference's zero."""
    prompt = "def find_zero(xs: list):\n"
    row = PLAIN_HUMANEVAL | {"prompt": prompt, "entry_point": "find_zero", "atol": 1e-4}
    row |= {
        "canonical_solution": "    return 1.0\n",
        "base_input": [[[-1, 0, 1]]],
        "plus_input": [],
    }
    assert judged(judge, row, prompt + "    return -1.00001").verdict is PASSED
    assert judged(judge, row, prompt + "    return 1.00009").verdict is WRONG
    zeroing = "    xs[:] = [0, 0]\n    return 7.0"
    assert judged(judge, row, prompt + zeroing).verdict is WRONG


ARGUMENTS = {
    2: ([[1], [2, [3]]], [(1,), (2, [3])]),
    63: ([[[1, 2], [3]]], [[(1, 2), (3,)]]),
    75: ([[[1, 2]], 3], [[(1, 2)], 3]),
    106: ([[1], [2]], [[1], (2,)]),
    115: ([[[1, 1], [], {}]], [[{1}, {}, {}]]),
    124: (["1.5", "2j"], [1.5, 2j]),
    307: ([[1], 2, [3]], [(1,), 2, [3]]),
    252: (["1+2j"], [1 + 2j]),
    259: ([[[1], [2]]], [((1,), (2,))]),
    278: ([[1, [2, 3]]], [(1, (2, 3))]),
    580: ([[1, [2, [3]]]], [(1, (2, (3,)))]),
    722: ([{"a": [1, 2]}, 3], [{"a": (1, 2)}, 3]),
    4: ([[1], [2]], [[1], [2]]),
}


@pytest.mark.parametrize("task", ARGUMENTS)
def test_arguments_that_json_does_not_know(task):
    given, meant = ARGUMENTS[task]
    for name in (task, f"Mbpp/{task}"):
        row = {"task_id": name, "base_input": [given], "plus_input": [given, given]}
        once, twice = evalplus_tests(row, "MBPP", "def f(): pass", "f", "row")
        assert f"INPUTS = {[meant]!r}\n" in once.input
        assert f"INPUTS = {[meant, meant]!r}\n" in twice.input
    row |= {"task_id": f"HumanEval/{task}"}
    once, _ = evalplus_tests(row, "HumanEval", "def f(): pass", "f", "row")
    assert f"INPUTS = {[given]!r}\n" in once.input


def test_arguments_arrive_as_they_are_meant(judge):
    code = "def f(*given):\n    return repr(given)\n"
    row = PLAIN_MBPP | {"entry_point": "f", "canonical_solution": code, "assertion": ""}
    row |= {"base_input": [[float("inf")], [float("nan"), -0.0]], "plus_input": [["\ud800\n'"], []]}
    expected = repr(((float("inf"),), (float("nan"), -0.0), ("\ud800\n'",), ()))
    fixed = f"def f(*given):\n    assert repr(given) in {expected!r}\n    return repr(given)"
    assert judged(judge, row, fixed).verdict is PASSED
    row |= {"task_id": "Mbpp/124", "base_input": [["1.5", "2j"]], "plus_input": []}
    assert judged(judge, row, "def f(x, y): return repr((1.5, 2j))").verdict is PASSED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_input": [3]}, "field base_input, element 1 is 3; it must be the list of the arg"),
        ({"plus_input": [[1], {"a": 1}]}, "field plus_input, element 2 is {'a': 1}; it must be"),
        ({"plus_input": 5}, "field plus_input is 5; it must be a list"),
        ({"plus_input": "[["}, "field plus_input is not JSON"),
        ({"atol": "1"}, "field atol is '1'; write a number, 0 or more"),
        ({"atol": -1.0}, "field atol is -1.0"),
        ({"atol": float("nan")}, "field atol is nan"),
        (
            {"canonical_solution": ""},
            "field canonical_solution, which gives their results, is miss",
        ),
        ({"base_input": [], "plus_input": []}, "it has no tests"),
        (
            {"task_id": "Mbpp/252", "base_input": [], "plus_input": [["1+"]]},
            "field plus_input, element 1 is .*'1\\+'",
        ),
        ({"task_id": "Mbpp/722", "base_input": [[]]}, r"field base_input, element 1 is \[\]"),
    ],
)
def test_bad_rows_are_named(change, message):
    with pytest.raises(UserError, match=message) as refusal:
        problem_from_any(PLAIN_MBPP | change, "f line 3")
    assert str(refusal.value).startswith("f line 3 (id 'Mbpp/")
