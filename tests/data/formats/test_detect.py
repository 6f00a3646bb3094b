"""Rows of every schema to problems: telling schemas apart, and what is refused."""

import base64
import json
import os
import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.own_rows import CALL, PAIR
from support.own_rows import replaced as own

from rlif_jax.data.formats.detect import SCHEMAS, problem_from_any
from rlif_jax.data.formats.livecodebench import problem_from_row, row_from_problem
from rlif_jax.data.formats.own import OWN_FIELDS
from rlif_jax.errors import UserError

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


@pytest.mark.parametrize("row", [None, 3, "text", ["id"]])
def test_row_that_is_no_object(row):
    with pytest.raises(UserError, match="a row must be a JSON object, not"):
        problem_from_any(row)


def test_row_that_is_no_object_is_quoted_briefly():
    with pytest.raises(UserError) as refusal:
        problem_from_any([{str(n): ["a long text" * 9] * 9 for n in range(9)}] * 9)
    assert len(str(refusal.value)) < 300


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
