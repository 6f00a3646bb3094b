"""Faults of the rows of a problem file, what it holds, and its overlap with held-out problems."""

import functools

import pytest
from support.own_rows import PAIR, SUM, own, write_rows

from rlif_jax.data.findings import Fault, check_overlap, check_rows, usable_problems
from rlif_jax.data.formats.detect import problem_from_any


@pytest.fixture
def write(tmp_path):
    """Writes rows, or lines as they are, and gives the path of the file."""
    return functools.partial(write_rows, tmp_path)


def found(faults: list[Fault]) -> list[tuple[int, str, str]]:
    return [(fault.line, fault.kind, fault.id) for fault in faults]


# ---- rows


def test_all_bad_rows_are_found_with_line_and_id(write):
    path = write(
        own("good"),
        '{"id": "broken", ',
        "",
        own("no tests", tests=[]),
        "[1, 2]",
        own("it's", prompt=5),
        {"task_id": 601, "text": "?", "code": "", "test_list": []},
        {"name": "x", "what": "?"},
        own("fine"),
    )
    faults, contents = check_rows(path)
    assert found(faults) == [
        (2, "bad row", ""),
        (4, "bad row", "no tests"),
        (5, "bad row", ""),
        (6, "bad row", "it's"),
        (7, "bad row", "mbpp/601"),
        (8, "bad row", "x"),
    ]
    assert faults[1].message.startswith("field tests is empty")
    assert faults[3].message == "field prompt is 5, not text; write it as text."
    assert str(path) not in "".join(fault.message for fault in faults)
    assert (contents.rows, contents.lines) == (8, {1, 9})


def test_ids_and_statements_that_come_twice(write):
    path = write(
        own("a"),
        own("b", prompt="add  THE\nnumbers of a."),
        own("a"),
        own("c", prompt="Add the numbers of a!"),
    )
    faults, contents = check_rows(path)
    assert found(faults) == [(2, "repeated statement", "b"), (3, "repeated id", "a")]
    assert "'a' in line 1" in faults[0].message
    assert "line 1" in faults[1].message
    assert contents.lines == {1, 2, 4}


def test_starter_code_tells_statements_apart(write):
    docs = ['def f():\n    """One."""\n', 'def f():\n    """Two."""\n']
    path = write(*(own(d, prompt="See the docstring.", starter_code=d) for d in docs))
    assert check_rows(path)[0] == []


@pytest.mark.parametrize(
    ("splits", "messages"),
    [
        (["train", "validation"], []),
        (["train", "test"], ["field split is 'test'; set it to 'train' or 'validation'"]),
        (["train", None, "train"], ["field split is missing, but 'train' in line 1"]),
        ([None, "train", None], ["field split is 'train', but missing in line 1"]),
        ([["train"]], ["field split is ['train']"]),
    ],
)
def test_splits(write, splits, messages):
    faults, _ = check_rows(write(*(own(f"p{n}", split=s) for n, s in enumerate(splits))))
    assert len(faults) == len(messages)
    assert all(f.message.startswith(m) for f, m in zip(faults, messages, strict=True))


def test_contents(write):
    call = {"input": [1], "output": 1}
    path = write(
        own("a", platform="p", solution=SUM, split="train"),
        own("b", tests=[PAIR] * 4, difficulty="easy", split="train"),
        own("c", tests=[call] * 3, entry_point="f", split="validation"),
        own("bad", tests=[]),
    )
    assert check_rows(path)[1].summary() == {
        "rows": 4,
        "problems": 3,
        "with_solution": 1,
        "tests_per_problem": {"min": 1, "median": 3, "max": 4},
        "by_kind": {"functional": 1, "stdin": 2},
        "by_platform": {"": 2, "p": 1},
        "by_difficulty": {"": 2, "easy": 1},
        "by_split": {"train": 2, "validation": 1},
    }


def test_usable_problems_are_those_of_the_lines(write):
    rows = [own("a"), own("b"), own("c")]
    path = write(rows[0], "", *rows[1:])
    assert list(usable_problems(path, {1, 4})) == [
        (1, problem_from_any(rows[0])),
        (4, problem_from_any(rows[2])),
    ]


def test_done_is_told_of_each_row(write):
    told = []
    check_rows(write(own("a"), "{", own("b"), "{"), told.append)
    assert told == [0, 1, 1, 2]


# ---- overlap


def test_overlap(write):
    words = " ".join(f"word{i}" for i in range(40))
    held_out = [problem_from_any(own("h", prompt=words)), problem_from_any(own("c"))]
    path = write(own("a"), own("b", prompt=f"See: {words}"), own("c", prompt="Other."))
    told = []
    faults = list(check_overlap(path, {1, 2, 3}, held_out, "the set", lambda: told.append(1)))
    assert found(faults) == [(2, "overlap", "b"), (3, "overlap", "c")]
    assert (
        "13 words of the statement in common as 'h' of the set, \"word0 word1" in faults[0].message
    )
    assert "the same id as 'c' of the set" in faults[1].message
    assert len(told) == 3
