"""Problem sets built and read back through TFDS, without TensorFlow, network or noise."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import rlif_jax
from rlif_jax.data.formats.livecodebench import problem_from_row
from rlif_jax.data.sets.builder import CheckedRows, CodeProblems
from rlif_jax.data.sets.humaneval import humaneval_problems
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError

SHARED_CACHE = os.environ.get("RLIF_CACHE", "")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rows(make_row) -> list[dict]:
    """Ten rows, in an order that is not that of their ids; every third one is held out."""
    names = [None, "add"]
    splits = ["validation", "train", "train"]
    return [
        make_row(f"p{7 * i % 10}", func_name=names[i % 2], question_content=f"é\u2028{i}")
        | {"split": splits[i % 3]}
        for i in range(10)
    ]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def problems(name: str, split: str) -> list:
    source = problem_source(name, split)
    return [source[i] for i in range(len(source))]


def test_splits_come_back_in_order(tmp_path, rows):
    name = write(tmp_path / "set.jsonl", rows)
    for split in ("train", "validation"):
        expected = [problem_from_row(row) for row in rows if row["split"] == split]
        assert problems(name, split) == expected
        assert len(expected) in (4, 6)


def test_second_use_reads_what_the_first_built(tmp_path, rows, cache):
    name = write(tmp_path / "set.jsonl", rows)
    first = problems(name, "train")
    files = {f: f.stat().st_mtime_ns for f in cache.rglob("*array_record*")}
    assert len(files) == 2  # whole rows, and statements
    assert problems(name, "train") == first
    assert {f: f.stat().st_mtime_ns for f in cache.rglob("*array_record*")} == files


def test_changed_file_is_built_anew(tmp_path, rows):
    name = write(tmp_path / "set.jsonl", rows)
    assert len(problems(name, "train")) == 6
    rows[1]["question_content"] = "changed"
    write(tmp_path / "set.jsonl", [*rows, rows[1] | {"question_id": "new"}])
    changed = problems(name, "train")
    assert len(changed) == 7
    assert (changed[0].prompt, changed[-1].id) == ("changed", "new")


def test_process_that_comes_second_uses_the_files_of_the_first(tmp_path, rows, monkeypatch):
    """While one build writes its records another one finishes; the first cannot rename its own."""
    name = write(tmp_path / "set.jsonl", rows)
    generate = CheckedRows.__iter__
    overtaken = []

    def overtake(self):
        if not overtaken:
            overtaken.append(True)
            assert len(problems(name, "train")) == 6
        return generate(self)

    monkeypatch.setattr(CheckedRows, "__iter__", overtake)
    assert len(problems(name, "train")) == 6
    assert overtaken == [True]
    assert len(problems(name, "validation")) == 4


SCRIPT = """
import socket, sys, pathlib, time
def refuse(*args, **kwargs):
    raise RuntimeError("network used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from rlif_jax.data.sets.named import problem_source
pathlib.Path(sys.argv[3]).touch()
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.001)
source = problem_source(sys.argv[1], "train")
ids = [source[i].id for i in range(len(source))]
assert not [m for m in sys.modules if m.split(".")[0] in ("tensorflow", "torch")]
pathlib.Path(sys.argv[3]).write_text(" ".join(ids))
"""


def test_processes_at_once_offline_and_silent(tmp_path, rows, cache):
    """Three processes build the same set at the same moment, as the hosts of a pod would."""
    name = write(tmp_path / "set.jsonl", rows)
    go, outs = tmp_path / "go", [tmp_path / f"out{i}" for i in range(3)]
    paths = [str(Path(rlif_jax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, name, str(go), str(out)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for out in outs
    ]
    while not all(out.exists() for out in outs) and all(p.poll() is None for p in processes):
        time.sleep(0.01)
    go.touch()
    for process in processes:
        assert (process.communicate(timeout=60), process.returncode) == (("", ""), 0)
    expected = " ".join(row["question_id"] for row in rows if row["split"] == "train")
    assert [out.read_text() for out in outs] == [expected] * 3
    assert not list(cache.rglob("*incomplete*"))


def test_leftovers_of_a_killed_build_do_no_harm(tmp_path, rows, cache):
    name = write(tmp_path / "set.jsonl", rows)
    expected = problems(name, "train")
    (built,) = cache.rglob(str(CodeProblems.VERSION))
    built.rename(built.with_name(f"incomplete.ABC123_{built.name}"))
    assert problems(name, "train") == expected


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
    assert told[0][0] == f"3 rows of {name} cannot be used and are left out:"
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
    assert told[:2] == [f"8 rows of {name} cannot be used and are left out:", line]
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
    with pytest.raises(UserError, match=r"holds 10 rows and none .*the first: .*line 1 .*metadata"):
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


def test_everything_of_a_problem_is_kept(tmp_path, make_row):
    test = {"input": "def check(f):\n    assert f(1, 2) == 3\ncheck(add)", "testtype": "assert"}
    known = {
        "func_name": "add",
        "time_limit_s": 2.5,
        "solution": "def add(a, b):\n    return a + b\n",
        "tags": ["math", {"é": None}],
        "difficulty": 1200,
        "half": "\ud83d",
    }
    row = make_row("f", metadata=json.dumps(known), difficulty="", private_test_cases="[]")
    row["public_test_cases"] = json.dumps([test])
    (problem,) = problems(write(tmp_path / "set.jsonl", [row]), "train")
    assert problem == problem_from_row(row)
    assert problem.metadata["tags"] == ["math", {"é": None}]
    assert (problem.metadata["difficulty"], problem.metadata["half"]) == (1200, "\ud83d")
    assert (problem.tests[0].kind, problem.tests[0].output) == ("assert", "")


def test_entries_describe_problems_without_their_records(tmp_path, rows, cache):
    name = write(tmp_path / "set.jsonl", rows)
    source = problem_source(name, "train")
    for index in range(len(source)):
        problem, entry = source[index], source.entry(index)
        assert (entry.id, entry.tests, entry.split) == (problem.id, len(problem.tests), "train")
        described = (entry.question_title, entry.platform, entry.difficulty, entry.contest_date)
        assert described == ("Sum", "example", "easy", "2025-01-01T00:00:00")
    for records in cache.rglob("*array_record*"):
        records.unlink()
    source = problem_source(name, "validation")
    assert [source.entry(i).place for i in range(2)] == [f"{name} line 1", f"{name} line 4"]


def test_statements_are_read_without_the_tests(tmp_path, rows, cache):
    name = write(tmp_path / "set.jsonl", rows)
    whole = problems(name, "train")
    (records,) = cache.rglob("*-problems.array_record*")
    records.unlink()
    source = problem_source(name, "train")
    statements = [source.statement(index) for index in range(len(source))]
    assert statements == [replace(problem, tests=()) for problem in whole]
    with pytest.raises(Exception, match="array_record"):
        source[0]


def test_digests_tell_problems_apart_wherever_they_are(tmp_path, rows):
    def digests(name):
        source = problem_source(write(tmp_path / name, rows), "train")
        return [source.entry(index).digest for index in range(len(source))]

    first = digests("one.jsonl")
    assert len(set(first)) == len(first) == 6
    assert digests("other.jsonl") == first
    tests = json.loads(rows[2]["private_test_cases"])
    rows[2]["private_test_cases"] = json.dumps([*tests, {"input": "5", "output": "6"}])
    changed = digests("one.jsonl")
    assert [old == new for old, new in zip(first, changed, strict=True)].count(False) == 1


def test_rows_are_written_as_they_come(tmp_path, rows, cache, monkeypatch):
    """Memory does not have to hold a set: TFDS's own writer would want TensorFlow here."""
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 100)
    monkeypatch.setattr("rlif_jax.data.sets.builder.ROWS_OF_FILE", 4)
    monkeypatch.setattr("rlif_jax.data.sets.builder.CHARACTERS_TOGETHER", 1000)
    for row in rows:
        row["split"] = "train"
    found = problems(write(tmp_path / "set.jsonl", rows), "train")
    assert found == [problem_from_row(row) for row in rows]
    files = sorted(path.name for path in cache.rglob("*-problems.array_record*"))
    assert [name.rpartition("-")[2] for name in files] == ["00000", "00001", "00002"]


def test_file_that_grows_while_it_is_read(tmp_path, rows, cache, monkeypatch):
    name = write(tmp_path / "set.jsonl", rows)
    generate = CheckedRows.__iter__

    def grow(self):
        with open(name, "a") as file:
            file.write(json.dumps(rows[0] | {"question_id": "late"}) + "\n")
        return generate(self)

    monkeypatch.setattr(CheckedRows, "__iter__", grow)
    with pytest.raises(UserError, match=r"set\.jsonl was written to while it was read"):
        problem_source(name, "train")
    monkeypatch.undo()
    monkeypatch.setenv("RLIF_CACHE", str(cache))
    assert problems(name, "validation")[-1].id == "late"


def test_large_file_is_announced_once(tmp_path, rows, cache, monkeypatch):
    monkeypatch.setattr("rlif_jax.data.sets.stored.LARGE_BYTES", 1000)
    name = write(tmp_path / "set.jsonl", rows)
    told: list[str] = []
    for _ in range(2):
        problem_source(name, "train", notice=told.append)
    (announcement,) = told
    assert announcement.startswith(f"preparing {name} (0 MB), once, in {cache}")


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


def test_cache_that_cannot_be_written(tmp_path, rows, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Cannot keep the problems of .*RLIF_CACHE"):
        problem_source(write(tmp_path / "set.jsonl", rows), "train")


def test_full_disk(tmp_path, rows, cache):
    """A limit on the size of files stands in for the disk: the same writes fail."""
    name = write(tmp_path / "set.jsonl", rows)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(UserError, match=r"Cannot keep .*File too large.*RLIF_CACHE"):
            problem_source(name, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [f for f in cache.rglob("*") if f.is_file()]
    assert len(problems(name, "train")) == 6


def test_starter_set_is_served():
    train, validation = problems("starter", "train"), problems("starter", "validation")
    assert len(train) >= 96
    assert len(validation) >= 32
    assert not {p.id for p in train} & {p.id for p in validation}
