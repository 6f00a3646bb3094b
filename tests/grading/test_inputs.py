"""Problems that grading looks up in a file: rows of every kind of test, checked before any runs."""

import json

import pytest

from rlif_jax.data.formats.detect import problem_from_any
from rlif_jax.data.formats.livecodebench import row_from_problem
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError
from rlif_jax.grading.inputs import ProblemFile
from rlif_jax.problem import Problem, Test

ASSERTS = Problem(
    "halves",
    "Halve.",
    (Test("assert half(4) == 2", "", "assert"), Test("assert half(3) == 1", "", "assert", True)),
    entry_point="half",
    metadata={"solution": "def half(n): return n // 2"},
)


def written(path, *rows: dict):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_rows_with_python_that_asserts(tmp_path):
    echo = Problem("echo", "Echo.", (Test("a", "a", "stdin"),))
    rows = map(row_from_problem, (ASSERTS, echo))
    file = ProblemFile(written(tmp_path / "problems.jsonl", *rows))
    assert (file["halves"], file["echo"]) == (ASSERTS, echo)


SCHEMA_ROWS = {
    "own": {
        "id": "own",
        "prompt": "Halve.",
        "entry_point": "half",
        "tests": [{"input": [4], "output": 2}, {"input": [3], "output": 1}],
    },
    "mbpp/7": {
        "task_id": 7,
        "text": "Halve.",
        "code": "def half(n): return n // 2",
        "test_list": ["assert half(4) == 2"],
    },
    "HumanEval/x": {
        "task_id": "HumanEval/x",
        "prompt": 'def half(n):\n    """Halve."""\n',
        "entry_point": "half",
        "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    },
    "apps/12": {
        "problem_id": 12,
        "question": "Halve.",
        "input_output": json.dumps({"fn_name": "half", "inputs": [[4]], "outputs": [2]}),
        "difficulty": "introductory",
    },
    "taco": {
        "id": "taco",
        "question": "Halve.",
        "input_output": json.dumps({"inputs": ["4\n"], "outputs": ["2\n"]}),
        "time_limit": "2.0 seconds",
    },
    "codeforces/1_A. Half": {
        "name": "1_A. Half",
        "source": 2,
        "description": "Halve.",
        "public_tests": {"input": ["4\n"], "output": ["2\n"]},
    },
}


def test_rows_of_every_schema_are_the_problems_that_a_set_has_of_them(tmp_path, monkeypatch):
    path = written(tmp_path / "problems.jsonl", *SCHEMA_ROWS.values())
    file = ProblemFile(path)
    for name, row in SCHEMA_ROWS.items():
        assert file[name] == problem_from_any(row)
    assert all(problem.prompt for problem in map(file.__getitem__, SCHEMA_ROWS))
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    source = problem_source(f"jsonl:{path}")
    assert [source[i] for i in range(len(source))] == [file[name] for name in SCHEMA_ROWS]


def test_samples_have_no_statement_but_may_have_fields_of_other_schemas(tmp_path):
    row = {
        "id": "s",
        "input_output": {"inputs": ["1"], "outputs": ["1"]},
        "task_id": 3,
        "difficulty": "hard",
        "time_limit": "2.0 seconds",
        "starter_code": "",
    }
    problem = ProblemFile(written(tmp_path / "problems.jsonl", row))["s"]
    assert problem == Problem(
        "s", "", (Test("1", "1", "stdin", True),), metadata={"difficulty": "hard"}
    )


def test_one_problem_in_two_schemas_is_there_twice(tmp_path):
    sample = {"id": "apps/12", "input_output": {"inputs": ["1"], "outputs": ["1"]}}
    path = written(tmp_path / "problems.jsonl", SCHEMA_ROWS["apps/12"], sample)
    with pytest.raises(UserError, match=r"line 2: the id 'apps/12' was already used at .* line 1"):
        ProblemFile(path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("assert half(4 == 2", "test 2 is not Python"),
        ("assert halve(4) == 2", "test 2 never calls 'half'"),
    ],
)
def test_what_no_program_could_pass_is_named_with_its_row(tmp_path, source, words):
    row = row_from_problem(ASSERTS)
    bad = [{"input": source, "output": "", "testtype": "assert"}]
    rows = row | {"question_id": "good"}, row | {"private_test_cases": json.dumps(bad)}
    with pytest.raises(UserError, match=rf"problems\.jsonl line 2 \(id 'halves'\): {words}"):
        ProblemFile(written(tmp_path / "problems.jsonl", *rows))


def test_functional_tests_that_are_no_json_are_named_with_their_row(tmp_path):
    problem = Problem("p", "", (Test("[1", "1", "functional"),), entry_point="f")
    path = written(tmp_path / "problems.jsonl", row_from_problem(problem))
    with pytest.raises(UserError, match=r"line 1 \(id 'p'\): test 1 of the function 'f' has '\[1'"):
        ProblemFile(path)


def test_equal_faults_are_one_line_and_so_is_a_warning(tmp_path, make_row):
    rows = [make_row(f"p{n}", private_test_cases=None) for n in range(6)]
    file = ProblemFile(written(tmp_path / "problems.jsonl", *rows))
    (warning,) = file.warnings
    assert warning.startswith(f"{tmp_path}/problems.jsonl line 1 (id 'p0') and 5 more rows (line 2")
    assert len(file["p3"].tests) == 1
    rows = [make_row(f"p{n}", metadata=n) for n in range(5)]
    with pytest.raises(
        UserError, match=r"line 1 \(question_id 'p0'\) and 4 more rows .*metadata is 0, not"
    ):
        ProblemFile(written(tmp_path / "problems.jsonl", *rows))
