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
from support.stored_sets import problems, write

import rlif_jax
from rlif_jax.data.formats.livecodebench import problem_from_row
from rlif_jax.data.sets.builder import CheckedRows, CodeProblems
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


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
