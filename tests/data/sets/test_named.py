"""Problem sets by name: which problems they give, and which rows and names are refused."""

import os

import pytest
from support.stored_sets import problems, write

from rlif_jax.data.formats.livecodebench import problem_from_row
from rlif_jax.data.sets.humaneval import humaneval_problems
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")
SHARED_CACHE = os.environ.get("RLIF_CACHE", "")


def test_splits_come_back_in_order(tmp_path, rows):
    name = write(tmp_path / "set.jsonl", rows)
    for split in ("train", "validation"):
        expected = [problem_from_row(row) for row in rows if row["split"] == split]
        assert problems(name, split) == expected
        assert len(expected) in (4, 6)


BAD = {
    "no tests": ({"public_test_cases": "[]", "private_test_cases": "[]"}, "no tests"),
    "split": ({"split": "test"}, "split is 'test'; set it to 'train' or 'validation'"),
    "no split": ({"split": None}, "split is None; set it to 'train' or 'validation'"),
    "id": ({"question_id": "p0"}, r"the id 'p0' was already used at .*set\.jsonl line 1;"),
    "date": ({"contest_date": "3 May"}, r"\(id 'p4'\): contest_date is '3 May'.* write 2024-08-01"),
    "other schema": ({"question_content": 5}, "question_content is 5, not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_row_is_refused_and_nothing_is_written(tmp_path, rows, cache, name):
    change, message = BAD[name]
    rows[2] |= change
    with pytest.raises(UserError, match=rf"set\.jsonl line 3.*{message}"):
        problem_source(write(tmp_path / "set.jsonl", rows), "train")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_bad_rows_are_left_out_and_listed_each_time(tmp_path, rows):
    expected = [problem_from_row(rows[i]) for i in (0, 6, 9)]
    rows[1]["metadata"] = "{"
    rows[3]["question_id"] = "p0"
    rows[8]["split"] = "test"
    told: list[list[str]] = [[], []]
    name = write(tmp_path / "set.jsonl", rows)
    for notices in told:
        source = problem_source(name, "validation", skip_bad=True, notice=notices.append)
        assert [source[i] for i in range(len(source))] == expected
        assert source.skipped == tuple(notices[1:])
    assert told[0] == told[1]
    assert told[0][0] == f"3 rows of {name} are invalid and skipped:"
    assert [message.split(" (")[0].split(":")[0] for message in told[0][1:]] == [
        f"{name} line {number}" for number in (2, 4, 9)
    ]
    assert f"already used at {name} line 1" in told[0][2]
    with pytest.raises(UserError, match=r"line 2.*metadata is not JSON"):
        problem_source(name, "validation")
    # A copy elsewhere is the same set, and its messages name the copy.
    (tmp_path / "copy").mkdir()
    copy = write(tmp_path / "copy" / "set.jsonl", rows)
    moved = problem_source(copy, "validation", skip_bad=True)
    assert moved.skipped == tuple(message.replace(name, copy) for message in told[0][1:])
    assert moved.entry(1).place == f"{copy} line 7"


def test_equal_faults_are_one_line(tmp_path, rows, cache):
    """Also where the values that they quote differ, in the refusal and in what is told of them."""
    for number, row in enumerate(rows[:7]):
        row["starter_code"] = number
    rows[8]["metadata"] = "{"
    name = write(tmp_path / "set.jsonl", rows)
    with pytest.raises(UserError) as refusal:
        problem_source(name)
    line = (
        f"{name} line 1 (question_id 'p0') and 6 more rows (line 2, id 'p7'; line 3, id 'p4'; "
        "line 4, id 'p1'; ...): field starter_code is 0, not text; write it as text."
    )
    assert str(refusal.value) == (
        f"{line} 8 rows have 2 kinds of faults; `python -m rlif_jax.check {name}` lists them all."
    )
    assert not [path for path in cache.rglob("*") if path.is_file()]
    told: list[str] = []
    source = problem_source(name, skip_bad=True, notice=told.append)
    assert len(source) == 1
    assert told[:2] == [f"8 rows of {name} are invalid and skipped:", line]
    assert len(told) == 3 and told[2].startswith(
        f"{name} line 9 (question_id 'p6'): field metadata is not"
    )
    with pytest.raises(UserError) as refusal:  # of the set as it was built
        problem_source(name)
    assert str(refusal.value).startswith(line)


def test_one_warning_for_the_rows_of_a_file(tmp_path, rows):
    for row in rows[:9]:
        del row["private_test_cases"]
    name = write(tmp_path / "set.jsonl", rows)
    for _ in range(2):
        told: list[str] = []
        source = problem_source(name, notice=told.append)
        assert [len(source[i].tests) for i in range(len(source))] == [1] * 6
        (warning,) = told
        assert warning.startswith(
            f"warning: {name} line 1 (id 'p0') and 8 more rows (line 2, id 'p7'; line 3, id 'p4'; "
            "line 4, id 'p1'; ...): field private_test_cases is missing"
        )


def test_file_without_a_row_that_can_be_used(tmp_path, rows):
    name = write(tmp_path / "set.jsonl", [row | {"metadata": ""} for row in rows])
    with pytest.raises(
        UserError, match=r"holds 10 rows, none of them valid; the first: .*line 1 .*metadata"
    ):
        problem_source(name, "train", skip_bad=True)


def test_set_without_splits_is_there_in_either_role(tmp_path, rows):
    for row in rows:
        del row["split"]
    name = f"jsonl:{write(tmp_path / 'set.data', rows)}"
    expected = [problem_from_row(row) for row in rows]
    assert problems(name, "train") == problems(name, "validation") == expected
    mixed = write(tmp_path / "mixed.jsonl", [*rows[:4], rows[5] | {"split": "train"}])
    with pytest.raises(UserError, match=r"line 5.*split is 'train', but rows before it name no"):
        problem_source(mixed, "train")


def test_humaneval_is_served_in_either_role(monkeypatch):
    monkeypatch.setenv("RLIF_CACHE", SHARED_CACHE)
    expected = [problem for _, problem in humaneval_problems()]
    assert len(expected) == 164
    assert problems("humaneval", "validation") == problems("humaneval", "train") == expected


INPUTS = {"base_input": [[1]], "plus_input": [[2]]}
FUNCTION = {
    "task_id": "HumanEval/x",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "canonical_solution": "    return x\n",
}
STATEMENT = FUNCTION | {"prompt": '"""f(x) is x."""', "canonical_solution": "f = abs"}
HUB = {"task_id": 1, "prompt": "f(x) is x.", "code": "f = abs", "test_list": ["assert f(1) == 1"]}
MORE = "\ninputs = [[2]]\nfor given in inputs:\n    assert f(*given) == 2\n"
CHECK = "def check(f):\n    inputs = [[2]]\n    for given in inputs:\n        assert f(*given)\n"


@pytest.mark.parametrize(
    ("name", "row", "tests"),
    [
        ("humanevalplus", FUNCTION | INPUTS, 2),
        ("humanevalplus", FUNCTION | {"test": CHECK}, 1),
        ("mbppplus", STATEMENT | INPUTS, 2),
        ("mbppplus", STATEMENT | INPUTS | {"plus_input": []}, 1),  # as a few tasks have it
        ("mbppplus", HUB | {"test": MORE}, 2),
    ],
)
def test_sets_of_evalplus_by_name(tmp_path, name, row, tests):
    path = write(tmp_path / "plus.v1.jsonl", [row])
    for role in ("train", "validation"):
        (problem,) = problems(f"{name}@{path}", role)
        assert len(problem.tests) == tests


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("humanevalplus", FUNCTION | {"test": "def check(f):\n    assert f(1) == 1\n"}),
        ("humanevalplus", STATEMENT | INPUTS),
        ("mbppplus", FUNCTION | INPUTS),
        ("mbppplus", HUB),
        ("mbppplus", STATEMENT | INPUTS | {"plus_input": None}),
    ],
)
def test_a_set_of_evalplus_has_no_other_rows(tmp_path, name, row):
    """Nor rows with base tests alone, also where the file was built under another name before."""
    path = write(tmp_path / "other.jsonl", [row])
    assert len(problems(path, "train")) == 1
    with pytest.raises(UserError, match=rf"^{path} line 1 \(id '.*'\): not a row of "):
        problem_source(f"{name}@{path}")


@pytest.mark.parametrize("name", ["humanevalplus", "mbppplus@"])
def test_a_set_of_evalplus_needs_a_file(name):
    with pytest.raises(UserError, match=r"names no file; write .*plus@FILE, where FILE is .*Plus"):
        problem_source(name)


def test_unknown_names_and_splits(tmp_path, rows):
    with pytest.raises(UserError, match=r"Unknown problem set 'leetcode'\. Known: starter, human"):
        problem_source("leetcode", "train")
    with pytest.raises(UserError, match="opened for train or validation, not for 'test'"):
        problem_source("starter", "test")
    with pytest.raises(UserError, match=r"Cannot read .*none\.jsonl: No such file"):
        problem_source(str(tmp_path / "none.jsonl"), "train")
    with pytest.raises(UserError, match=f"Cannot read .*{tmp_path.name}: it is a folder"):
        problem_source(f"jsonl:{tmp_path}", "train")
    name = write(tmp_path / "set.jsonl", [row for row in rows if row["split"] == "train"])
    with pytest.raises(UserError, match="no split 'validation', only train"):
        problem_source(name, "validation")
    with pytest.raises(UserError, match="holds no problems"):
        problem_source(write(tmp_path / "empty.jsonl", []), "train")


def test_starter_set_is_served():
    train, validation = problems("starter", "train"), problems("starter", "validation")
    assert len(train) >= 96
    assert len(validation) >= 32
    assert not {p.id for p in train} & {p.id for p in validation}
