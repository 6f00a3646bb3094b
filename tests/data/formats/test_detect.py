"""Rows of every schema to problems: our own schema, telling schemas apart, and what is refused."""

import base64
import json
import os
import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_jax.data.formats.detect import OWN_FIELDS, SCHEMAS, problem_from_any
from rlif_jax.data.formats.rows import problem_from_row, row_from_problem
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test

PAIR = {"input": "3 4\n", "output": "7\n"}
CALL = {"input": [[3, 1], True], "output": [1, 3]}
MBPP = {
    "task_id": 7,
    "text": "Add.",
    "code": "def add(a, b): return a + b",
    "test_list": ["assert add(1, 2) == 3"],
}
HUMANEVAL = {
    "task_id": "HumanEval/x",
    "prompt": 'def one():\n    """Return 1."""\n',
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
APPS = {
    "problem_id": 3,
    "question": "Add the numbers.",
    "input_output": json.dumps({"inputs": ["3 4\n"], "outputs": ["7\n"]}),
}
CODE_CONTESTS = {
    "name": "1_A. Sum",
    "description": "Add the numbers.",
    "public_tests": {"input": ["3 4\n"], "output": ["7\n"]},
}


LEETCODE = {
    "task_id": "one",
    "problem_description": "Return 1.",
    "prompt": "from typing import *\n",
    "entry_point": "Solution().one",
    "completion": "class Solution:\n    def one(self): return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
    "meta": {},
}
SYNTHETIC = {
    "problem_id": "vfc_1",
    "prompt": "Add the numbers.",
    "task_type": "verifiable_code",
    "verification_info": {"test_cases": [PAIR | {"type": "stdin_stdout", "fn_name": None}]},
}
EURUS = {
    "prompt": [{"role": "user", "content": "Add the numbers."}],
    "ability": "code",
    "reward_model": {"ground_truth": json.dumps({"inputs": ["3 4\n"], "outputs": ["7\n"]})},
    "extra_info": {"split": "train", "index": 5},
}


def own(**fields) -> dict:
    """A good row of our own schema with some fields replaced, or left out where they are None."""
    row = {"id": "sum", "prompt": "Add the numbers.", "tests": [PAIR]} | fields
    return {name: value for name, value in row.items() if value is not None}


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


def test_own_tests_may_be_json_text():
    assert problem_from_any(own(tests=json.dumps([PAIR]))) == problem_from_any(own())


def test_own_id_may_be_a_number():
    assert problem_from_any(own(id=12)).id == "12"


def test_schemas_are_told_apart(make_row):
    lcb = make_row("abc1")
    assert problem_from_any(lcb) == problem_from_row(lcb)
    kinds = {
        "sum": own(),
        "mbpp/7": MBPP,
        "HumanEval/x": HUMANEVAL,
        "apps/3": APPS,
        "1_A. Sum": CODE_CONTESTS,
        "one": LEETCODE,
        "vfc_1": SYNTHETIC,
        "eurus2/train/5": EURUS,
    }
    assert {problem_from_any(row).id for row in kinds.values()} == set(kinds)
    assert problem_from_any(HUMANEVAL).tests[0].kind == "assert"


def test_humaneval_row_gets_the_time_limit():
    assert problem_from_any(HUMANEVAL, time_limit_s=1.0).time_limit_s == 1.0


@pytest.mark.parametrize(
    "row", [own(), MBPP, HUMANEVAL, APPS, CODE_CONTESTS, LEETCODE, SYNTHETIC, EURUS]
)
def test_all_can_be_stored(row):
    problem = problem_from_any(row)
    assert problem_from_row(row_from_problem(problem)) == problem


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
    "test no object": (own(tests=[PAIR, 5]), "field tests, test 2 is 5; write an object"),
    "no output": (own(tests=[{"input": ""}]), "test 1 is {'input': ''}; write an object"),
    "value for a program": (own(tests=[CALL]), "has input .*or name in entry_point the function"),
    "number printed": (own(tests=[PAIR | {"output": 7}]), "test 1 has output 7; write the text"),
    "text for a function": (own(entry_point="f"), r"has input '3 4\\n'; write the list of the arg"),
    "assert, no function": (own(tests=["assert f()"]), "test 1 is Python.*no entry_point is named"),
    "assert no text": (own(tests=[{"assert": 1}], entry_point="f"), "test 1 has assert 1"),
    "assert no Python": (
        own(tests=["assert f() == 1", "assert f( == 1"], entry_point="f"),
        r"test 2 is no Python: .*line 1, in 'assert f\( == 1'",
    ),
    "assert of another": (
        own(tests=["assert g() == 1"], entry_point="f"),
        r"test 1 never calls 'f': 'assert g\(\) == 1'",
    ),
    "assert too deep": (
        own(tests=["assert f() == " + "-" * 100_000 + "1"], entry_point="f"),
        "test 1 is no Python: .*",
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


@pytest.mark.parametrize("row", [None, 3, "text", ["id"]])
def test_row_that_is_no_object(row):
    with pytest.raises(UserError, match="a row must be a JSON object, not"):
        problem_from_any(row)


def test_row_that_is_no_object_is_quoted_briefly():
    with pytest.raises(UserError) as refusal:
        problem_from_any([{str(n): ["a long text" * 9] * 9 for n in range(9)}] * 9)
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x", "prompt": "p"}, r"\(id 'x'\): .*problems of your own, it lacks tests"),
        ({"task_id": 1, "text": "p"}, r"\(id 1\): .*nearest, MBPP, it lacks test_list"),
        ({"question_content": "p"}, "LiveCodeBench, it lacks public_test_cases or private_test"),
        ({"prompt": "p", "entry_point": "f"}, "HumanEval, it lacks test\\."),
        (
            {"prompt": "p", "entry_point": "f", "canonical_solution": ""},
            "MBPP\\+, it lacks base_input or plus_input",
        ),
        ({"input_output": "{}"}, "TACO and code_contests, it lacks question or description or"),
        ({"prompt": None, "tests": None}, "it lacks prompt and tests"),
        ({}, r"its fields are \[\]"),
    ],
)
def test_row_of_no_schema_hears_of_the_nearest_and_of_all(row, message):
    with pytest.raises(UserError, match=message) as refusal:
        problem_from_any(row, "f line 1")
    assert all(schema.name in str(refusal.value) for schema in SCHEMAS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"contest_date": "2024-13-01"}, r"\(id 'p0'\): contest_date is '2024-13-01'"),
        (
            {
                "metadata": '{"func_name": "f"}',
                "public_test_cases": '[{"input": "nope", "output": "1"}]',
                "private_test_cases": "[]",
            },
            "test 1 of the function 'f' has 'nope', which is not JSON",
        ),
    ],
)
def test_livecodebench_rows_are_checked_as_the_others(make_row, fields, message):
    with pytest.raises(UserError, match=message):
        problem_from_any(make_row(**fields))


UNREAD = {
    "own": (own(test_list=["assert f(1)"]), "test_list", "problems of your own"),
    "own, by another name": (own(hidden_tests=[PAIR]), "hidden_tests", "problems of your own"),
    "MBPP": (MBPP | {"extra_tests": ["assert add(0, 0) == 0"]}, "extra_tests", "MBPP"),
    "MBPP, not its text": (MBPP | {"input_output": '{"inputs": []}'}, "input_output", "MBPP"),
    "HumanEval": (HUMANEVAL | {"assertion": "assert one() == 1"}, "assertion", "HumanEval"),
    "APPS": (APPS | {"test_cases": {"input": ["1 1"], "output": ["2"]}}, "test_cases", "APPS"),
    "code_contests": (CODE_CONTESTS | {"plus_input": [["1 1"]]}, "plus_input", "APPS"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_row_is_never_used_without_some_of_its_tests(name):
    row, field, schema = UNREAD[name]
    with pytest.raises(UserError, match=f"field {field} seems to hold tests, .*rows of {schema}"):
        problem_from_any(row, "f line 1")


def test_livecodebench_rows_are_never_used_without_some_of_their_tests(make_row):
    with pytest.raises(UserError, match="field tests seems to hold tests"):
        problem_from_any(make_row() | {"tests": "[1]"})


@pytest.mark.parametrize("nothing", [None, "", " ", "[]", [], {}, 3, True])
def test_a_field_without_tests_is_no_matter(nothing):
    row = own(protest="x", latest=["x"]) | {"hidden_tests": nothing}
    assert problem_from_any(row) == problem_from_any(own())


class MakesFolder:
    """Creates a folder when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_row_is_run(make_row, tmp_path):
    made = tmp_path / "made"
    evil = base64.b64encode(zlib.compress(pickle.dumps(MakesFolder(made)))).decode()
    code = f"import os\nos.mkdir({str(made)!r})\ndef f(): return 1"
    with pytest.raises(UserError, match="refused"):
        problem_from_any(make_row(private_test_cases=evil))
    problem_from_any(own(tests=[f"{code}\nassert f() == 1"], entry_point="f", solution=code))
    problem_from_any(MBPP | {"code": code, "test_list": ["assert f() == 1"]})
    problem_from_any(APPS | {"solutions": [code]})
    assert not made.exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["input", "output", "inputs", "outputs", "fn_name", "assert", "seconds"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
FIELDS = sorted(
    {
        *OWN_FIELDS,
        *("question_id", "question_content", "public_test_cases", "private_test_cases", "metadata"),
        *MBPP,
        *HUMANEVAL,
        *APPS,
        *CODE_CONTESTS,
        *LEETCODE,
        *SYNTHETIC,
        *EURUS,
        *("base_input", "plus_input", "atol", "assertion", "challenge_test_list"),
        *("solutions", "url", "source", "time_limit", "test_input", "test_output", "test_imports"),
    }
)
HUMANEVAL_PLUS = HUMANEVAL | {"base_input": [[]], "plus_input": [[]]}
MBPP_PLUS = HUMANEVAL_PLUS | {"prompt": '"""Return 1."""', "test": None}
GOOD = st.sampled_from(
    [
        *(own(), own(tests=[CALL], entry_point="f"), MBPP, HUMANEVAL, APPS),
        *(LEETCODE, SYNTHETIC, EURUS),
        *(HUMANEVAL_PLUS, HUMANEVAL_PLUS | {"test": None}, MBPP_PLUS),
    ]
)


@given(GOOD | st.just(CODE_CONTESTS), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_any_row_is_a_problem_or_refused(good, fields):
    for row in (good | fields, good | {k: json.dumps(v) for k, v in fields.items()}):
        try:
            problem = problem_from_any(row)
        except UserError as error:
            assert str(error).startswith("row")
        else:
            assert problem.tests and problem.id and problem.prompt.strip()
            assert problem_from_row(row_from_problem(problem)).tests == problem.tests
