"""Rows of SYNTHETIC-1 and Eurus-2, of which only some are tasks of programming."""

import json

import pytest
from support.own_rows import write_rows

from rlif_jax.data.findings import check_rows, equal
from rlif_jax.data.formats.detect import problem_from_any
from rlif_jax.data.formats.livecodebench import problem_from_row, row_from_problem
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem, Test

SUM = "print(sum(map(int, input().split())))"
STDIN = {"type": "stdin_stdout", "fn_name": None, "input": "3 4\n", "output": "7\n"}
CALL = {"type": "function_call", "fn_name": "add", "input": [3, 4], "output": [7]}


def synthetic(*cases: dict, **fields) -> dict:
    """A row of SYNTHETIC-1."""
    return {
        "source": "apps",
        "task_type": "verifiable_code",
        "in_source_id": "0",
        "prompt": "Solve it in Python: add the numbers.",
        "gold_standard_solution": f"```python\n{SUM}\n```",
        "verification_info": {"language": "python", "test_cases": list(cases)},
        "metadata": {},
        "problem_id": "vfc_0",
    } | fields


def eurus(ground_truth: object, **fields) -> dict:
    """A row of Eurus-2."""
    return {
        "data_source": "taco",
        "prompt": [
            {"role": "system", "content": "Think first."},
            {"role": "user", "content": "Add the numbers."},
        ],
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": json.dumps(ground_truth)},
        "extra_info": {"split": "train", "index": 7},
    } | fields


def as_text(row: dict, *fields: str) -> dict:
    """The row with fields as their JSON."""
    return row | {field: json.dumps(row[field]) for field in fields}


@pytest.mark.parametrize("text", [True, False])
def test_synthetic_program(text):
    row = synthetic(STDIN)
    problem = problem_from_any(as_text(row, "verification_info", "metadata") if text else row)
    assert problem == Problem(
        id="vfc_0",
        prompt="Solve it in Python: add the numbers.",
        tests=(Test("3 4\n", "7\n", "stdin", private=True),),
        metadata={"platform": "apps", "solution": SUM},
    )


def test_synthetic_function():
    problem = problem_from_any(synthetic(CALL, gold_standard_solution=None), time_limit_s=2.0)
    assert (problem.entry_point, problem.time_limit_s) == ("add", 2.0)
    assert problem.tests == (Test("3\n4", "7", "functional", True, ("[7]",)),)
    assert "solution" not in problem.metadata
    assert problem_from_row(row_from_problem(problem)) == problem


def test_eurus_program_and_function():
    cases = {"inputs": ["3 4\n"], "outputs": ["7\n"]}
    assert problem_from_any(eurus(cases)) == Problem(
        id="eurus2/train/7",
        prompt="Add the numbers.",
        tests=(Test("3 4\n", "7\n", "stdin", private=True),),
        metadata={"platform": "taco"},
    )
    call = {"fn_name": "add", "inputs": [[3, 4]], "outputs": [[7]]}
    problem = problem_from_any(as_text(eurus(call), "reward_model"))
    assert problem.entry_point == "add"
    assert problem.tests == (Test("3\n4", "7", "functional", True, ("[7]",)),)


@pytest.mark.parametrize(
    ("output", "accepted"),
    [
        ("[1, 2]", ('"[1, 2]"', "[1, 2]")),
        ("True", ('"True"', "true")),
        ("7", ('"7"', "7")),
        ("07", ('"07"',)),  # no value prints so
        ("[1,2]", ('"[1,2]"',)),
        ("{1}", ('"{1}"',)),  # JSON has no sets
        ("a b", ('"a b"',)),
        (7, ("7",)),
    ],
)
def test_synthetic_outputs_may_be_what_is_printed(output, accepted):
    (test,) = problem_from_any(synthetic(CALL | {"output": output})).tests
    assert test.outputs == accepted


def test_eurus_functions_may_be_in_json():
    call = {"fn_name": "add", "inputs": ["[3]\n4\n", "1"], "outputs": ["[7]", "[1, 2]"]}
    assert problem_from_any(eurus(call)).tests == (
        Test("[3]\n4", "[7]", "functional", True, ("7",)),
        Test("1", "[1, 2]", "functional", True),
    )
    keys = {"fn_name": "f", "inputs": ['{"1": 2}'], "outputs": ["3"]}
    with pytest.raises(UserError, match="whose keys are numbers to the checkers"):
        problem_from_any(eurus(keys))
    with pytest.raises(UserError, match="which is not JSON"):
        problem_from_any(eurus(keys | {"inputs": ["x"]}))


def test_ids_of_rows_without_any():
    names = [
        problem_from_any(eurus({"inputs": [""], "outputs": ["1"]}, extra_info=extra)).id
        for extra in (None, {}, {"index": 7}, {"split": "test", "index": 0})
    ]
    assert names[0] == names[1] and names[0].startswith("question-")
    assert names[2:] == ["eurus2/7", "eurus2/test/0"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (synthetic(), r"^row \(id 'vfc_0'\): it has no tests"),
        (synthetic(STDIN, problem_id=None), "field problem_id is missing"),
        (synthetic(STDIN, task_type="verifiable_math"), "task_type is 'verifiable_math', a task w"),
        (synthetic(verification_info={"language": "rust"}), "the language 'rust', and only"),
        (synthetic(verification_info="{"), "field verification_info is not JSON"),
        (synthetic(verification_info=[1]), r"verification_info is \[1\]; it must be an object"),
        (synthetic(CALL | {"fn_name": None}), "has input .*name that in fn_name"),
        (synthetic(STDIN, CALL), "call several functions, 'add', None"),
        (synthetic(STDIN, prompt=" "), "field prompt is empty"),
        (synthetic(STDIN, gold_standard_solution=[5]), "gold_standard_solution, element 1 is 5"),
        (eurus({}, ability="math"), r"^row \(id 'eurus2/train/7'\): field ability is 'math', a ta"),
        (
            eurus("7"),
            "field reward_model.ground_truth is not JSON|it must be an object with inputs",
        ),
        (eurus({"inputs": ["1"], "outputs": []}), "has 1 inputs and 0 outputs"),
        (eurus({}, prompt=[]), "field prompt has 0 messages of the user"),
        (eurus({}, prompt=[{"role": "user", "content": 3}]), "field prompt is 3, not text"),
    ],
)
def test_bad_rows_are_refused(row, message):
    with pytest.raises(UserError, match=message):
        problem_from_any(row)


def test_rows_of_other_tasks_are_one_fault_with_a_count(tmp_path):
    cases = {"inputs": ["3 4\n"], "outputs": ["7\n"]}
    rows = [
        eurus(cases if n == 4 else {}, ability="code" if n == 4 else "math")
        | {"extra_info": {"split": "train", "index": n}}
        for n in range(9)
    ]
    rows += [synthetic(problem_id=f"m{n}", task_type="verifiable_math") for n in range(3)]
    faults, contents = check_rows(write_rows(tmp_path, *rows))
    assert [len(group) for group in equal(faults)] == [8, 3]
    assert contents.lines == {5}
