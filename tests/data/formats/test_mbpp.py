"""MBPP rows to problems: the function that is meant, the prompt that names it, the tests."""

import pytest

from rlif_jax.data.formats.mbpp import problem_from_mbpp
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test

ROW = {
    "task_id": 601,
    "text": "Write a function to find shared elements.",
    "code": "def helper(a):\r\n  return set(a)\r\ndef shared(a, b):\r\n  return helper(a) & set(b)",
    "test_list": [
        "assert set(shared((3, 4), (4, 5))) == set((4,))",
        "assert set(shared((1,), (1,))) == {1}",
    ],
    "test_setup_code": "",
    "challenge_test_list": ["assert shared([], []) == set()"],
}


def row(**fields) -> dict:
    return {name: value for name, value in (ROW | fields).items() if value is not None}


def test_full_row():
    first, second = ROW["test_list"]
    assert problem_from_mbpp(ROW, time_limit_s=3.0) == Problem(
        id="mbpp/601",
        prompt=(
            "Write a function to find shared elements.\n\n"
            f"Your code should pass these tests:\n{first}\n{second}"
        ),
        tests=(
            Test(first, "", "assert"),
            Test(second, "", "assert"),
            Test("assert shared([], []) == set()", "", "assert", private=True),
        ),
        entry_point="shared",
        time_limit_s=3.0,
        metadata={"solution": ROW["code"].replace("\r\n", "\n")},
    )


def test_sanitized_row():
    sanitized = row(
        text=None,
        prompt="Find them.",
        source_file="Benchmark Questions Verification V2.ipynb",
        test_imports=["import math", "import cmath\r\n"],
        test_setup_code=None,
        challenge_test_list=None,
    )
    problem = problem_from_mbpp(sanitized)
    assert problem.prompt.startswith("Find them.\n\nYour code should pass")
    assert "import" not in problem.prompt
    assert [test.input for test in problem.tests] == [
        f"import math\nimport cmath\n{test}" for test in ROW["test_list"]
    ]


def test_the_source_in_test_is_a_private_test():
    """As in evalplus/mbppplus, where it has most of the inputs."""
    source = "inputs = [[[1], [1]]]\r\nfor given in inputs:\n    assert shared(*given) == {1}\n"
    problem = problem_from_mbpp(row(test_imports=["import math"], test=source))
    plain = "inputs = [[[1], [1]]]\nfor given in inputs:\n    assert shared(*given) == {1}"
    assert problem.tests[-1] == Test(f"import math\n{plain}", "", "assert", private=True)
    assert len(problem.tests) == 4
    assert "given" not in problem.prompt


def test_assertions_without_inputs_are_a_private_test():
    problem = problem_from_mbpp(row(assertion="\nassert shared([1], [1]) == {1}\n"))
    assert problem.tests[-1] == Test("assert shared([1], [1]) == {1}", "", "assert", private=True)


def test_reference_may_be_a_canonical_solution_and_prompt_a_docstring():
    fields = {"canonical_solution": ROW["code"], "prompt": "'''\nFind\n  them.\n'''"}
    problem = problem_from_mbpp(row(code=None, text=None, **fields))
    assert problem.metadata == {"solution": ROW["code"].replace("\r\n", "\n")}
    assert problem.prompt.startswith("Find\n  them.\n\nYour code should pass these tests:\nassert ")
    assert problem.entry_point == "shared"


def test_every_line_ends_with_a_newline_alone():
    """A carriage return alone ends one for Python, too."""
    odd = row(
        text="Find\rthem.\r",
        code="def shared(a, b):\r  return a\r\n",
        test_list=["assert shared(1, 2)\r", "n = 1\rassert shared(n, 2)\r\n"],
        test_setup_code="m = 3\r",
    )
    problem = problem_from_mbpp(odd)
    assert problem.metadata["solution"] == "def shared(a, b):\n  return a\n"
    assert problem.prompt.startswith("Find\nthem.\n\nYour code")
    assert [test.input for test in problem.tests[:2]] == [
        "m = 3\nassert shared(1, 2)",
        "m = 3\nn = 1\nassert shared(n, 2)",
    ]
    assert "\r" not in repr(problem)


def test_setup_code_goes_before_each_test():
    problem = problem_from_mbpp(row(test_setup_code="n = 3\r\nm = 4"))
    assert [test.input.split("assert")[0] for test in problem.tests] == ["n = 3\nm = 4\n"] * 3


@pytest.mark.parametrize(
    ("code", "tests", "name"),
    [
        ("class P: pass\ndef f(p): return 1", ["assert f([P(), P()]) == 1"], "f"),
        ("def g(): return 2\ndef f(x): return x", ["assert f(g()) == 2", "assert f(1)"], "f"),
        ("def g(): return 2\ndef f(x): return x", ["assert g() == f(2)", "assert f(1)"], "f"),
        ("print 'Python 2'", ["assert len(f(1)) == 2"], "f"),
        (None, ["assert sorted(set(f(1))) == [2]"], "f"),
        ("f = lambda x: x", ["assert f(1) == 1"], "f"),
        ("def f(x): return x", ["import math\nassert math.isclose(f(1), 1)"], "f"),
    ],
)
def test_function_that_the_tests_are_about(code, tests, name):
    bare = row(code=code, test_list=tests, challenge_test_list=[])
    assert problem_from_mbpp(bare).entry_point == name


def test_entry_point_may_be_given():
    given = row(code="from m import *", test_list=["assert len(f(2)) == g(1)"], entry_point="g")
    assert problem_from_mbpp(given).entry_point == "g"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task_id": None}, "field task_id is missing"),
        ({"test": ["assert shared(1)"]}, r"field test is \['assert shared"),
        ({"base_input": [], "test_list": None}, "field entry_point is missing"),
        ({"text": None}, "field prompt is missing"),
        ({"text": 5}, "field text is 5, not text"),
        ({"test_list": []}, r"\(id 'mbpp/601'\): field test_list has no tests"),
        ({"test_list": "assert shared(1)"}, "field test_list is not JSON"),
        ({"test_list": [3]}, "field test_list, element 1 is 3; it must be text"),
        ({"challenge_test_list": {"a": 1}}, "field challenge_test_list is {'a': 1}; it must be a"),
        (
            {"test_list": ["assert shared("]},
            "test 1 is not Python: .*'assert shared\\('",
        ),
        (
            {"test_list": ["assert other(1)"]},
            r"test 1 calls no function that field code defines: 'assert other\(1\)'",
        ),
        ({"entry_point": 3}, "field entry_point is 3, which is not the name of a function"),
        ({"time_limit_s": -1}, "field time_limit_s is -1, not a positive number"),
        ({"code": ["def"]}, r"field code is \['def'\], not text"),
    ],
)
def test_bad_rows(fields, message):
    with pytest.raises(UserError, match=message) as refusal:
        problem_from_mbpp(row(**fields), "m.jsonl line 3")
    assert str(refusal.value).startswith("m.jsonl line 3")
