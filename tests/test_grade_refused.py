"""Grading's refusals: files, problems and completions that are invalid; no program runs."""

import json
import os

import pytest
from support.grading import ECHO, GOOD, official, packed, sample

from rlif_jax.errors import UserError
from rlif_jax.grading.inputs import ProblemFile


class MakesFolder:
    """Creates a folder when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_is_refused_and_does_nothing(grading, tmp_path):
    grading.write(
        [sample("good", ("1", "1")), official("evil", packed(MakesFolder(tmp_path / "made")))],
        [{"id": "good", "code": ECHO}],
    )
    assert grading() == 2
    assert "problems.jsonl line 2 (question_id 'evil')" in grading.errors
    assert "pickle that is refused" in grading.errors
    assert not (tmp_path / "made").exists()
    assert not grading.out.exists()


def test_file_that_changes_meanwhile(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(sample("a", ("1", "1"))))
    problems = ProblemFile(path)
    path.write_text(json.dumps(sample("b", ("1", "1"))))
    with pytest.raises(UserError, match="line 1 has changed while it was in use"):
        problems["a"]
    path.unlink()
    with pytest.raises(UserError, match="Cannot read the problems"):
        problems["a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "a row must be a JSON object, not [1]"),
        ({"id": "a"}, "(id 'a'): a row of no known schema"),
        ({"input_output": "{}"}, "field id is None; give each problem an id"),
        (sample(7, ("1", "1")), "field id is 7; give each problem an id, as text"),
        (sample("", ("1", "1")), "field id is ''"),
        (sample("\ud800", ("1", "1")), "half of a surrogate pair"),
        ({"id": "a", "input_output": "{"}, "(id 'a'): field input_output is not JSON"),
        ({"id": "a", "input_output": "[]"}, "(id 'a'): field input_output must be an object"),
        ({"id": "a", "input_output": 3}, "(id 'a'): field input_output must be an object"),
        ({"id": "a", "input_output": {"inputs": ["1"]}}, "outputs of input_output must be a list"),
        (
            {"id": "a", "input_output": {"inputs": ["1", "2"], "outputs": ["1"]}},
            "(id 'a'): field input_output has 2 inputs and 1 outputs",
        ),
        (sample("a"), "(id 'a'): no tests in input_output"),
        (official("a", "[]", public_test_cases="[]"), "(question_id 'a'): no tests"),
        (sample("a", (1, "1")), "inputs[0] of input_output is 1; it must be text or a list"),
        (sample("a", (["1", 2], "1")), "inputs[0] of input_output is ['1', 2]"),
        (sample("a", ("1", ["1"])), "outputs[0] of input_output is ['1']; it must be text (JSON"),
        (sample("a", ("1", "\udc80")), "input_output, outputs[0] holds '\\udc80'"),
        (sample("a", ("1", "1"), fn_name="a b"), "fn_name 'a b', which is not the name"),
        (sample("a", ("1", "1"), time_limit_s=0), "field time_limit_s is 0, not a positive"),
        (sample("a", ("1", "1"), time_limit_s=1e6), "field time_limit_s is 1000000.0, not a"),
        (sample("a", ("1", "1"), time_limit_s="6"), "field time_limit_s is '6', not a positive"),
        (sample("a", ("x", "1"), fn_name="f"), "(id 'a'): test 1 of the function 'f' has 'x'"),
        (sample("a", ("1", "1"), ("1\n", "1 2"), fn_name="f"), "test 2 of the function 'f'"),
        (sample("a", ("1", "[" * 100_000), fn_name="f"), "which is not JSON"),
        (official("a", packed(["[]"])), "pickle that is refused"),
        (GOOD, "the id 'good' was already used at"),
    ],
)
def test_bad_problems_are_refused_before_any_program_runs(grading, row, message):
    grading.write([GOOD, row], [{"id": "good", "code": ECHO}])
    assert grading() == 2
    assert message in grading.errors
    assert f"{grading.problems} line 2" in grading.errors
    assert not grading.out.exists()


# ---- completions


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x", "'x' is not a completion; each row is an object"),
        ({"code": ECHO}, "is not a completion"),
        ({"id": 1, "code": ECHO}, "is not a completion"),
        ({"id": "other", "code": ECHO}, "there is no problem with the id 'other'"),
        ({"id": "good"}, "(id 'good'): the row has neither code nor completion"),
        ({"id": "good", "code": 3}, "(id 'good'): code is 3; give it as text, or null"),
        ({"id": "good", "completion": ["a"]}, "(id 'good'): completion is ['a']; give it as text"),
        ({"id": "good", "code": 3, "completion": "a"}, "(id 'good'): code is 3"),
    ],
)
def test_bad_completions_are_refused_before_any_program_runs(grading, row, message):
    grading.write([GOOD], [{"id": "good", "code": ECHO}, row])
    assert grading() == 2
    assert message in grading.errors
    assert f"{grading.completions} line 2" in grading.errors
    assert not grading.out.exists()


@pytest.mark.parametrize("name", ["problems", "completions"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a file of"), (b"", "holds no"), (b"\xff\n", "line 1: not a JSON object")],
)
def test_bad_files(grading, name, content, message):
    grading.write([GOOD], [{"id": "good", "code": ECHO}])
    path = getattr(grading, name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert grading() == 2
    assert f"{path} {message}" in grading.errors or f"{path}" in grading.errors
    assert message in grading.errors
