"""The starter problems: their form, and that their tests tell right from wrong, run for real."""

import ast
import collections
import difflib
import json
from datetime import datetime
from importlib import resources

import pytest

from rlif_jax import config
from rlif_jax.data.formats.livecodebench import problem_from_row
from rlif_jax.data.sets.starter import make
from rlif_jax.data.sets.starter.source import Program
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

FIELDS = {
    "question_title",
    "question_content",
    "platform",
    "question_id",
    "contest_id",
    "contest_date",
    "starter_code",
    "difficulty",
    "public_test_cases",
    "private_test_cases",
    "metadata",
    "split",
}


def committed(name: str) -> str:
    return (resources.files("rlif_jax.data.sets.starter") / name).read_text(encoding="utf-8")


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in committed(name).splitlines()]


ROWS = read("problems.jsonl")
SOLUTIONS = {row["question_id"]: row for row in read("solutions.jsonl")}


def cases(row: dict[str, str], field: str) -> list[dict[str, str]]:
    return json.loads(row[field])


@pytest.fixture(scope="module")
def judge():
    with Judge(config.Execution(workers=2)) as pool:
        yield pool


def outcomes(judge: Judge, which: str):
    futures = {
        row["question_id"]: judge.submit(
            problem_from_row(row), SOLUTIONS[row["question_id"]][which]
        )
        for row in ROWS
    }
    return {question_id: future.result() for question_id, future in futures.items()}


def test_every_reference_passes_all_its_tests(judge):
    results = outcomes(judge, "reference")
    failed = {id_: (o.verdict, o.detail) for id_, o in results.items() if not o.passed}
    assert failed == {}
    assert all(len(o.results) == o.tests_total for o in results.values())


def test_every_wrong_solution_is_rejected(judge):
    results = outcomes(judge, "wrong")
    assert [id_ for id_, o in results.items() if o.passed] == []
    # Honest mistakes: they compile, and give an answer or crash on some edge case.
    honest = {Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR}
    assert {id_: o.verdict for id_, o in results.items() if o.verdict not in honest} == {}
    wrong_answers = sum(o.verdict is Verdict.WRONG_ANSWER for o in results.values())
    assert wrong_answers >= 0.9 * len(results)


def test_the_maker_reproduces_the_committed_files():
    for name, text in make.files().items():
        assert text == committed(name), f"{name}: run python -m rlif_jax.data.sets.starter.make"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["question_id"])
def test_row_has_the_form_of_livecodebench(row):
    assert set(row) == FIELDS
    assert all(isinstance(value, str) for value in row.values())
    assert row["platform"] == "rlif_starter"
    assert row["difficulty"] in ("easy", "medium", "hard")
    assert row["split"] in ("train", "validation")
    datetime.fromisoformat(row["contest_date"])
    public = cases(row, "public_test_cases")
    private = cases(row, "private_test_cases")
    assert 2 <= len(public) <= 3
    assert len(private) >= 2
    assert len(public) + len(private) >= 5
    inputs = [test["input"] for test in public + private]
    assert len(set(inputs)) == len(inputs)
    func_name = json.loads(row["metadata"]).get("func_name")
    if func_name is None:
        assert row["starter_code"] == ""
        assert json.loads(row["metadata"]) == {}
    else:
        assert f"def {func_name}(" in row["starter_code"]
    for test in public + private:
        assert set(test) == {"input", "output", "testtype"}
        assert test["testtype"] == ("functional" if func_name else "stdin")
        if func_name:
            parameters = ast.parse(row["starter_code"] + "pass").body[0]
            if isinstance(parameters, ast.ClassDef):
                parameters = parameters.body[0]
            names = [a.arg for a in parameters.args.args if a.arg != "self"]
            values = [json.loads(line) for line in test["input"].split("\n")]
            assert len(values) == len(names)
            json.loads(test["output"])
        else:
            assert test["output"].strip()
    assert len(row["question_content"].split()) <= 60


def test_counts_of_splits_kinds_and_difficulties():
    splits = collections.Counter(row["split"] for row in ROWS)
    assert splits == {"train": 108, "validation": 36}
    for split, size in splits.items():
        rows = [row for row in ROWS if row["split"] == split]
        difficulties = collections.Counter(row["difficulty"] for row in rows)
        assert difficulties == dict.fromkeys(("easy", "medium", "hard"), size // 3)
        assert sum(row["starter_code"] == "" for row in rows) == size // 3
    assert sum(row["starter_code"].startswith("class Solution") for row in ROWS) >= 4


def test_the_first_rows_of_a_split_have_its_mix():
    for split in ("train", "validation"):
        first = [row for row in ROWS if row["split"] == split][:12]
        assert collections.Counter(row["difficulty"] for row in first) == {
            "easy": 4,
            "medium": 4,
            "hard": 4,
        }
        assert 3 <= sum(row["starter_code"] == "" for row in first) <= 5


@pytest.mark.parametrize("field", ["question_id", "question_title", "question_content"])
def test_problems_are_distinct(field):
    assert len({row[field] for row in ROWS}) == len(ROWS)


def test_each_problem_has_its_solutions():
    assert set(SOLUTIONS) == {row["question_id"] for row in ROWS}
    for solution in SOLUTIONS.values():
        assert set(solution) == {"question_id", "reference", "wrong"}


class _Rename(ast.NodeTransformer):
    """Names in the order of appearance: equal dumps are the same program on the same types."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def _new(self, name: str) -> str:
        return self.names.setdefault(name, f"v{len(self.names)}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = "f"
        for argument in node.args.args:
            argument.arg = self._new(argument.arg)
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if isinstance(node.ctx, ast.Store) or node.id in self.names:
            node.id = self._new(node.id)
        return node


def test_no_two_problems_have_the_same_solution():
    programs = {
        ast.dump(_Rename().visit(ast.parse(solution["reference"])))
        for solution in SOLUTIONS.values()
    }
    assert len(programs) == len(SOLUTIONS)


def test_held_out_questions_are_not_near_copies_of_train_questions():
    train = [row["question_content"] for row in ROWS if row["split"] == "train"]
    for row in ROWS:
        if row["split"] == "validation":
            words = row["question_content"].split()
            for other in train:
                match = difflib.SequenceMatcher(None, words, other.split(), autojunk=False)
                assert match.ratio() < 0.9, (row["question_content"], other)


def test_the_maker_refuses_tests_that_let_the_wrong_solution_pass():
    lenient = Program("Echo", "Print the line.", ["a", "b"], "print(input())", "print(input()[0])")
    with pytest.raises(UserError, match="'Echo': its wrong solution passes every test"):
        make.make_row(lenient, "easy", "train")


def test_a_row_of_a_program_by_hand():
    sum_ = Program("Add up!", "Print a + b.", ["1 2", "0 0", "4 -1"],
                   "a, b = map(int, input().split())\nprint(a + b)", "print(3)")  # fmt: skip
    row = make.make_row(sum_, "easy", "train")
    assert row["question_id"] == "starter_easy_add_up"
    assert row["question_content"] == "Print a + b.\nExample: the input 1 2 prints 3."
    assert json.loads(row["public_test_cases"]) == [
        {"input": "1 2\n", "output": "3\n", "testtype": "stdin"},
        {"input": "0 0\n", "output": "0\n", "testtype": "stdin"},
    ]
    assert json.loads(row["private_test_cases"]) == [
        {"input": "4 -1\n", "output": "3\n", "testtype": "stdin"}
    ]
