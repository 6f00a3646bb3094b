"""Rows of our own schema to problems, and the refusal of rows that are not right."""

import json

import pytest
from support.own_rows import CALL, PAIR
from support.own_rows import replaced as own

from rlif_jax.data.formats.detect import problem_from_any
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test


def test_own_program():
    row = own(
        solution="print(sum(map(int, input().split())))",
        time_limit_s=2,
        platform="mine",
        difficulty="easy",
        contest_date="2024-08-01",
        question_title="Sum",
        split="train",
        source="elsewhere",
    )
    assert problem_from_any(row) == Problem(
        id="sum",
        prompt="Add the numbers.",
        tests=(Test("3 4\n", "7\n", "stdin", private=True),),
        time_limit_s=2.0,
        metadata={
            "solution": "print(sum(map(int, input().split())))",
            "platform": "mine",
            "difficulty": "easy",
            "contest_date": "2024-08-01",
            "question_title": "Sum",
        },
    )


def test_own_function():
    tests = [CALL, {"input": [], "output": {"a": None}}, {"input": ["é\n"], "output": 0.5}]
    row = own(tests=tests, entry_point="f", starter_code="def f(a, b):\n    ")
    problem = problem_from_any(row, time_limit_s=1.5)
    assert problem.tests == (
        Test("[3, 1]\ntrue", "[1, 3]", "functional", private=True),
        Test("", '{"a": null}', "functional", private=True),
        Test('"\\u00e9\\n"', "0.5", "functional", private=True),
    )
    assert (problem.entry_point, problem.starter_code) == ("f", "def f(a, b):\n    ")
    assert problem.time_limit_s == 1.5


def test_own_asserts():
    block = "x = f(2)\nassert x == 4"
    row = own(tests=["assert f(1) == 2", {"assert": block}], entry_point="f")
    assert problem_from_any(row).tests == (
        Test("assert f(1) == 2", "", "assert", private=True),
        Test(block, "", "assert", private=True),
    )


def test_own_examples():
    tests = [PAIR | {"public": True}, PAIR | {"public": False}, PAIR]
    assert [test.private for test in problem_from_any(own(tests=tests)).tests] == [0, 1, 1]
    shown = {"assert": "assert f(1) == 2", "public": True}
    (test,) = problem_from_any(own(tests=[shown], entry_point="f")).tests
    assert not test.private


def test_own_tests_may_be_json_text():
    assert problem_from_any(own(tests=json.dumps([PAIR]))) == problem_from_any(own())


def test_own_id_may_be_a_number():
    assert problem_from_any(own(id=12)).id == "12"


BAD = {
    "no id": (own(id=None), "field id is missing"),
    "id no text": (own(id=["x"]), r"field id is \['x'\]; give each problem an id"),
    "blank id": (own(id=" "), "field id is ' '"),
    "prompt no text": (own(prompt=5), r"'sum'\): field prompt is 5, not text"),
    "blank prompt": (own(prompt="\n"), "field prompt is empty"),
    "half a character": (own(prompt="\ud800"), "field prompt holds .*surrogate"),
    "half in a test": (own(tests=[PAIR | {"input": "\ud800"}]), "tests, test 1, input holds"),
    "no tests": (own(tests=[]), "field tests is empty; .*add at least one"),
    "broken JSON": (own(tests="[{"), r"field tests is not JSON .*starts with '\[\{'"),
    "tests no list": (own(tests={"input": ""}), "field tests is {'input': ''}; it must be a list"),
    "public no truth": (own(tests=[PAIR | {"public": "yes"}]), "test 1 has public 'yes'; write tr"),
    "test no object": (own(tests=[PAIR, 5]), "field tests, test 2 is 5; write an object"),
    "no output": (own(tests=[{"input": ""}]), "test 1 is {'input': ''}; write an object"),
    "value for a program": (own(tests=[CALL]), "has input .*or name in entry_point the function"),
    "number printed": (own(tests=[PAIR | {"output": 7}]), "test 1 has output 7; write the text"),
    "text for a function": (own(entry_point="f"), r"has input '3 4\\n'; write the list of the arg"),
    "assert, no function": (own(tests=["assert f()"]), "test 1 is Python.*no entry_point is named"),
    "assert no text": (own(tests=[{"assert": 1}], entry_point="f"), "test 1 has assert 1"),
    "assert no Python": (
        own(tests=["assert f() == 1", "assert f( == 1"], entry_point="f"),
        r"test 2 is not Python: .*line 1, in 'assert f\( == 1'",
    ),
    "assert of another": (
        own(tests=["assert g() == 1"], entry_point="f"),
        r"test 1 never calls 'f': 'assert g\(\) == 1'",
    ),
    "assert too deep": (
        own(tests=["assert f() == " + "-" * 100_000 + "1"], entry_point="f"),
        "test 1 is not Python: .*",
    ),
    "two kinds": (
        own(tests=["assert f([1])", {"input": [1], "output": 1}], entry_point="f"),
        "tests are of several kinds, assert and functional",
    ),
    "no name": (own(entry_point="f(x)", tests=[CALL]), r"entry_point is 'f\(x\)', which is not"),
    "no date": (own(contest_date="soon"), "contest_date is 'soon', which is not a date"),
    "no such day": (own(contest_date="2024-02-30"), "contest_date is '2024-02-30'"),
    "no time": (own(time_limit_s="2"), "field time_limit_s is '2', not a positive number"),
    "misspelt": (own(entrypoint="f"), "field entrypoint is not known; write entry_point"),
    "misspelt, too": (own(time_limit=2), "field time_limit is not known; write time_limit_s"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_place_field_and_remedy(name):
    row, message = BAD[name]
    with pytest.raises(UserError, match=message) as refusal:
        problem_from_any(row, "set.jsonl line 7")
    assert str(refusal.value).startswith("set.jsonl line 7")
    assert "\n" not in str(refusal.value)
