"""HumanEval rows to problems, and the refusal of rows that are not right."""

import pytest

from rlif_jax.data.formats.humaneval import TIME_LIMIT_S, problem_from_humaneval
from rlif_jax.data.prompts import prompt_messages
from rlif_jax.errors import UserError
from rlif_jax.problem import Test

ROW = {
    "task_id": "HumanEval/x",
    "prompt": '\nimport math\n\ndef half(n):\n    """Half of n.\n    >>> half(3)\n    1\n    """\n',
    "entry_point": "half",
    "canonical_solution": "    return n // 2\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(3) == 1\n",
}


def test_a_row_as_a_problem():
    problem = problem_from_humaneval(ROW)
    assert problem.id == "HumanEval/x"
    assert problem.tests == (Test(f"{ROW['test']}\ncheck(half)\n", "", "assert", private=True),)
    assert (problem.entry_point, problem.time_limit_s) == ("half", TIME_LIMIT_S)
    assert problem.metadata == {
        "platform": "humaneval",
        "solution": ROW["prompt"] + ROW["canonical_solution"],
    }
    assert prompt_messages(problem) == [
        {
            "role": "user",
            "content": "The docstring says what the function half has to do.\n\n"
            "Complete this function and put it in one ```python block:\n"
            '```python\nimport math\n\ndef half(n):\n    """Half of n.\n    >>> half(3)\n    1\n'
            '    """\n```',
        }
    ]


def test_a_row_may_lack_a_solution_and_have_a_time_limit():
    problem = problem_from_humaneval(ROW | {"canonical_solution": None, "time_limit_s": 7})
    assert (problem.metadata, problem.time_limit_s) == ({"platform": "humaneval"}, 7.0)
    assert problem_from_humaneval(ROW, "row", 5.0).time_limit_s == 5.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task_id": None}, "field task_id is None"),
        ({"prompt": "  "}, r"\(task_id 'HumanEval/x'\): field prompt is '  '"),
        ({"prompt": "Half of n."}, "field prompt has no line that starts with 'def half\\('"),
        ({"prompt": "def halve(n):\n"}, "field prompt has no line that starts with 'def half\\('"),
        ({"test": ["assert half(3) == 1"]}, r"field test is \['assert"),
        ({"test": "assert half(3) == 1"}, "field test has no line that starts with 'def check\\('"),
        ({"test": ROW["test"] + "'\ud800'"}, "half of a surrogate pair"),
        ({"entry_point": "half of"}, "field entry_point has 'half of'"),
        ({"canonical_solution": 1}, "field canonical_solution is 1"),
        ({"time_limit_s": -1}, "field time_limit_s is -1"),
    ],
)
def test_a_bad_row_is_named(change, words):
    with pytest.raises(UserError, match=rf"^file line 3.*{words}"):
        problem_from_humaneval(ROW | change, "file line 3")


def test_a_row_with_inputs_may_lack_test():
    inputs = {"base_input": [[3]], "plus_input": [[4], [5]]}
    whole = problem_from_humaneval(ROW | inputs)
    bare = problem_from_humaneval(ROW | inputs | {"test": None})
    assert whole.tests == (*problem_from_humaneval(ROW).tests, *bare.tests)
    assert len(bare.tests) == 2
    for row in (ROW | {"test": None}, ROW | inputs | {"test": ""}):
        with pytest.raises(UserError, match="field test is"):
            problem_from_humaneval(row)


def test_what_is_no_row_is_named():
    with pytest.raises(UserError, match=r"^row: a row must be a JSON object, not \['a'\]"):
        problem_from_humaneval(["a"])
