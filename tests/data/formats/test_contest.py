"""Rows of APPS, TACO, code_contests and sets flattened from them."""

import json

import pytest

from rlif_jax.config import Execution
from rlif_jax.data.formats.contest import problem_from_contest
from rlif_jax.data.formats.livecodebench import problem_from_row, row_from_problem
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Test

SUM = "print(sum(map(int, input().split())))"
APPS = {
    "problem_id": 12,
    "question": "Add the numbers.",
    "solutions": json.dumps(["print 1", SUM]),
    "input_output": json.dumps({"inputs": ["3 4\n", ["1 1", "x"]], "outputs": ["7\n", ["2"]]}),
    "difficulty": "interview",
    "url": "https://codeforces.com/problemset/problem/1259/D",
    "starter_code": "",
}
TACO = {
    "question": "Add the numbers.",
    "solutions": [SUM],
    "input_output": {"inputs": ["3 4\n"], "outputs": ["7\n"]},
    "difficulty": "MEDIUM_HARD",
    "name": None,
    "source": "codechef",
    "url": "https://www.codechef.com/problems/X",
    "date": "2021-02-23",
    "time_limit": "1.5 seconds",
    "memory_limit": "512 megabytes",
    "picture_num": "0",
    "raw_tags": "['math']",
    "starter_code": "",
}
CODE_CONTESTS = {
    "name": "1575_A. Sum",
    "description": "Add the numbers.",
    "public_tests": {"input": ["3 4\n"], "output": ["7\n"]},
    "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["1 1\n", "2 2\n"], "output": ["2\n", "4\n"]},
    "source": 5,
    "difficulty": 18,
    "solutions": {"language": [2, 1, 3], "solution": ["int main() {}", "print 7", SUM]},
    "incorrect_solutions": {"language": [3], "solution": ["print(0)"]},
    "cf_rating": 0,
    "time_limit": {"seconds": 2, "nanos": 500_000_000},
    "input_file": "",
    "output_file": "",
}


def function(inputs: list, outputs: list, name: str = "f") -> dict:
    """A row with tests that call a function."""
    cases = {"fn_name": name, "inputs": inputs, "outputs": outputs}
    return {"problem_id": 1, "question": "Do it.", "input_output": json.dumps(cases)}


def test_apps_row():
    assert problem_from_contest(APPS) == Problem(
        id="apps/12",
        prompt="Add the numbers.",
        tests=(
            Test("3 4\n", "7\n", "stdin", private=True),
            Test("1 1\nx", "2", "stdin", private=True),
        ),
        metadata={"platform": "codeforces", "difficulty": "interview", "solution": SUM},
    )


def test_taco_row():
    problem = problem_from_contest(TACO)
    assert problem.metadata == {
        "platform": "codechef",
        "difficulty": "medium_hard",
        "contest_date": "2021-02-23",
        "solution": SUM,
    }
    assert problem.time_limit_s == 1.5
    # Without any id in the row, the same statement has the same one, and another has another.
    assert problem.id == problem_from_contest(TACO | {"url": ""}).id
    assert problem.id != problem_from_contest(TACO | {"question": "Add them."}).id


def test_code_contests_row():
    assert problem_from_contest(CODE_CONTESTS) == Problem(
        id="atcoder/1575_A. Sum",
        prompt="Add the numbers.",
        tests=(
            Test("3 4\n", "7\n", "stdin"),
            Test("1 1\n", "2\n", "stdin", private=True),
            Test("2 2\n", "4\n", "stdin", private=True),
        ),
        time_limit_s=2.5,
        metadata={
            "platform": "atcoder",
            "difficulty": "l",
            "question_title": "1575_A. Sum",
            "solution": SUM,
        },
    )


def test_public_tests_come_first_whatever_the_order_of_fields():
    samples = json.dumps({"input": ["9"], "output": ["9"]})
    tests = problem_from_contest(CODE_CONTESTS | {"test_samples": samples}).tests
    assert [(t.input, t.private) for t in tests[:3]] == [
        ("3 4\n", False),
        ("9", False),
        ("1 1\n", True),
    ]


@pytest.mark.parametrize(
    "tests",
    [
        {"tests": json.dumps([{"input": "3 4", "output": "7", "testtype": "stdin"}])},
        {"tests": {"inputs": ["3 4"], "outputs": ["7"]}},
        {"tests": [{"type": "stdin_stdout", "fn_name": None, "input": "3 4", "output": "7"}]},
        {"tests": [{"input": "3 4", "output": "7", "metadata": {"func_name": None}}]},
        {"test_input": ["3 4"], "test_output": ["7"]},
        {"private_tests": [{"input": "3 4", "output": "7"}], "generated_tests": None},
    ],
)
@pytest.mark.parametrize("statement", ["problem", "question", "description"])
def test_flattened_rows(tests, statement):
    problem = problem_from_contest({"task_id": "t1", statement: "Add."} | tests)
    assert problem.tests == (Test("3 4", "7", "stdin", private=True),)
    assert (problem.id, problem.prompt) == ("t1", "Add.")


def test_function_row():
    row = function([[[1, 2, 3], 3], ["ab", {"k": None}]], [12, 7]) | {"starter_code": "def f("}
    problem = problem_from_contest(row)
    assert problem.tests == (
        Test("[1, 2, 3]\n3", "12", "functional", private=True),
        Test('"ab"\n{"k": null}', "7", "functional", private=True),
    )
    assert (problem.entry_point, problem.starter_code) == ("f", "def f(")


@pytest.mark.parametrize(
    ("outputs", "accepted"),
    [
        ([12, 3], [("12",), ("3",)]),
        ([[12], [[]]], [("12", "[12]"), ("[]", "[[]]")]),  # each may be in a list of its own
        ([[[1, 2]], ["a"]], [("[1, 2]", "[[1, 2]]"), ('"a"', '["a"]')]),
        ([[12], 3], [("[12]", "12"), ("3",)]),
        ([[12], [1, 2]], [("[12]", "12"), ("[1, 2]",)]),  # several hold no single result
        ([[], []], [("[]",), ("[]",)]),
    ],
)
def test_a_result_and_a_list_of_nothing_but_it_are_both_right(outputs, accepted):
    problem = problem_from_contest(function([[1], [2]], outputs))
    assert [test.outputs for test in problem.tests] == accepted
    assert problem_from_row(row_from_problem(problem)) == problem


def test_the_judge_accepts_both_results_and_tells_both_of_a_third():
    outputs = [[[0, 1]], [5]]
    problem = problem_from_contest(function([[0], [1]], outputs))
    programs = {
        "results": "def f(n): return [[0, 1], 5][n]",
        "lists": "def f(n): return [[[0, 1]], [5]][n]",
        "tuples": "def f(n): return [((0, 1),), (5,)][n]",
        "first": "def f(n): return [0, 5][n]",
        "twice": "def f(n): return [[[[0, 1]]], [[5]]][n]",
    }
    with Judge(Execution(workers=1), run_all_tests=True) as judge:
        found = {n: judge.submit(problem, p).result(60) for n, p in programs.items()}
    assert {name: outcome.passed for name, outcome in found.items()} == {
        "results": True,
        "lists": True,
        "tuples": True,
        "first": False,
        "twice": False,
    }
    assert found["first"].detail == "test 1: returned '0', expected '[0, 1]' or '[[0, 1]]'"
    # What programs answered is told apart all the same: votes know nothing of the expected.
    assert found["results"].answers[1] != found["lists"].answers[1]
    assert found["results"].answers[1] == found["first"].answers[1]


def test_lines_may_end_in_newlines():
    cases = {"inputs": [["1\n", "2\n", "\n", "3"]], "outputs": [["a\n", "b"]]}
    (test,) = problem_from_contest(APPS | {"input_output": cases}).tests
    assert (test.input, test.output) == ("1\n2\n\n3", "a\nb")


def test_function_tests_in_the_form_of_livecodebench():
    pair = {"input": "[1, 2]\n3", "output": "[6]", "metadata": {"func_name": "f"}}
    problem = problem_from_contest({"id": "x", "problem": "Do it.", "tests": [pair]})
    assert problem.tests == (Test("[1, 2]\n3", "[6]", "functional", private=True),)
    assert problem.entry_point == "f"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"problem_id": 0}, "apps/0"),
        ({"id": 4}, "codeforces/4"),
        ({"id": 4, "url": ""}, "contest/4"),
        ({"id": "x/1"}, "x/1"),
    ],
)
def test_ids_of_two_sets_do_not_meet(fields, name):
    assert problem_from_contest(APPS | {"problem_id": None} | fields).id == name


@pytest.mark.parametrize(
    ("fields", "platform"),
    [
        ({"url": "https://open.kattis.com/problems/x"}, "kattis"),
        ({"url": "http://[broken"}, None),
        ({"url": ""}, None),
        ({"source": "LeetCode"}, "leetcode"),
        ({"source": "UNKNOWN_SOURCE", "url": ""}, None),
        ({"source": None, "url": "https://atcoder.jp/contests/abc001"}, "atcoder"),
    ],
)
def test_platform(fields, platform):
    assert problem_from_contest(APPS | fields).metadata.get("platform") == platform


@pytest.mark.parametrize(
    ("source", "difficulty", "expected"),
    [
        (0, 0, (None, None)),
        (6, 28, ("aizu", "v")),
        ("CODEFORCES", "EASY", ("codeforces", "easy")),
        ("UNKNOWN_SOURCE", "UNKNOWN_DIFFICULTY", (None, None)),
    ],
)
def test_class_labels(source, difficulty, expected):
    row = CODE_CONTESTS | {"source": source, "difficulty": difficulty}
    metadata = problem_from_contest(row).metadata
    assert (metadata.get("platform"), metadata.get("difficulty")) == expected


def test_number_that_is_no_label():
    assert problem_from_contest(APPS | {"difficulty": 1500}).metadata["difficulty"] == "1500"


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("1 second", 1.0),
        ("2.0 seconds", 2.0),
        ("0.5 sec.", 0.5),
        (3, 3.0),
        (None, 7.0),
        ("", 7.0),
        ({"seconds": "1", "nanos": 0}, 1.0),
        ({"seconds": 0, "nanos": 0}, 7.0),
        ({"seconds": 0, "nanos": 250_000_000}, 0.25),
    ],
)
def test_time_limits(limit, seconds):
    problem = problem_from_contest(APPS | {"time_limit": limit}, time_limit_s=7.0)
    assert problem.time_limit_s == seconds


@pytest.mark.parametrize(
    ("fields", "solution"),
    [
        ({"solutions": ""}, None),
        ({"solutions": "[]"}, None),
        ({"solutions": ["print 1", "int main() {}"]}, None),
        ({"solutions": [f"```python\n{SUM}\n```"]}, SUM),
        ({"solutions": [{"language": 2, "solution": "1"}, {"language": 3, "solution": SUM}]}, SUM),
        ({"solutions": {"solution": ["print 1", SUM]}}, SUM),
        # code_contests: 1 is Python 2, even where it could be read as Python 3
        ({"solutions": {"language": [1, 3], "solution": ["print(raw_input())", SUM]}}, SUM),
        ({"solutions": {"language": [1, 4], "solution": ["print(raw_input())", SUM]}}, None),
        ({"solutions": None, "solution": SUM}, SUM),
    ],
)
def test_first_solution_in_python_3(fields, solution):
    assert problem_from_contest(APPS | fields).metadata.get("solution") == solution


BAD = {
    "no tests": ({"input_output": ""}, r"\(id 'apps/12'\): it has no tests"),
    "empty lists": ({"input_output": '{"inputs": [], "outputs": []}'}, "it has no tests"),
    "no JSON": ({"input_output": '{"inputs": ['}, "field input_output is not JSON .*starts with"),
    "number": ({"input_output": 5}, "field input_output is 5; it must be an object with inputs"),
    "lengths": (
        {"input_output": {"inputs": ["1", "2"], "outputs": ["1"]}},
        "field input_output has 2 inputs and 1 outputs",
    ),
    "no list": (
        {"input_output": {"inputs": ["1"], "outputs": "1"}},
        "outputs of field input_output is '1'; it must be a list",
    ),
    "value": (
        {"input_output": {"inputs": ["1"], "outputs": [1]}},
        r"input_output, test 1 has output 1; it must be text .*name that in fn_name",
    ),
    "no pair": ({"tests": [{"input": "1"}]}, r"field tests, test 1 is {'input': '1'}; it must be"),
    "arguments": (
        {"input_output": {"fn_name": "f", "inputs": [3], "outputs": [3]}},
        "test 1 has input 3; a function's input is the list of its arguments",
    ),
    "numbers for keys": (
        {"input_output": {"fn_name": "f", "inputs": [[{"1": 2, "-3": 4}]], "outputs": [3]}},
        "has the argument {'-3': 4, '1': 2}, whose keys are numbers to the checkers of APPS",
    ),
    "no name": (
        {"input_output": {"fn_name": "f()", "inputs": [[]], "outputs": [1]}},
        r"field input_output has the function name 'f\(\)'",
    ),
    "two functions": (
        {"tests": [{"input": [1], "output": 1, "fn_name": "g"}]},
        "its tests call several functions, 'g', None",
    ),
    "half a character": ({"tests": [{"input": "\ud800", "output": ""}]}, "tests, test 1, input"),
    "files": ({"input_file": "in.txt"}, "reading and writing files, 'in.txt' and None"),
    "time": ({"time_limit": "forever"}, "field time_limit is 'forever', not a positive number"),
    "duration": ({"time_limit": {"seconds": "x"}}, r"time_limit is {'seconds': 'x'}, not a pos"),
    "dots": ({"time_limit": "1.2.3 s"}, "field time_limit is '1.2.3 s'"),
    "solutions": ({"solutions": "[1"}, "field solutions is not JSON"),
    "no program": ({"solutions": [3]}, "field solutions, element 1 is 3; it must be text"),
    "statement": ({"question": 5}, "field question is 5, not text"),
    "no statement": ({"question": None}, "field question is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_place_field_and_remedy(name):
    fields, message = BAD[name]
    with pytest.raises(UserError, match=message) as refusal:
        problem_from_contest(APPS | fields, "apps.jsonl line 2")
    assert str(refusal.value).startswith("apps.jsonl line 2")
    assert "\n" not in str(refusal.value)
