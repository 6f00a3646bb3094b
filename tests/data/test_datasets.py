"""Problem sets built and read back through TFDS, without TensorFlow, network or noise."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rlif_jax
from rlif_jax.data.datasets import CodeProblems, problem_source
from rlif_jax.data.rows import problem_from_row
from rlif_jax.errors import UserError


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
    assert len(files) == 2
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
    generate = CodeProblems._generate_examples
    overtaken = []

    def overtake(self, split):
        if not overtaken:
            overtaken.append(split)
            assert len(problems(name, "train")) == 6
        return generate(self, split)

    monkeypatch.setattr(CodeProblems, "_generate_examples", overtake)
    assert len(problems(name, "train")) == 6
    assert overtaken == ["train"]
    assert len(problems(name, "validation")) == 4


SCRIPT = """
import socket, sys, pathlib, time
def refuse(*args, **kwargs):
    raise RuntimeError("network used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from rlif_jax.data.datasets import problem_source
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
    (built,) = cache.rglob("1.0.0")
    built.rename(built.with_name("incomplete.ABC123_1.0.0"))
    assert problems(name, "train") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "line 3.*no tests"),
        ({"split": "test"}, "line 3.*split is 'test'; set it to 'train' or 'validation'"),
        ({"question_id": "p0"}, r"line 3: question_id 'p0' was already used at .*line 1"),
    ],
)
def test_bad_row_is_refused_and_nothing_is_written(tmp_path, rows, cache, change, message):
    rows[2] |= change
    with pytest.raises(UserError, match=message):
        problem_source(write(tmp_path / "set.jsonl", rows), "train")
    assert not cache.exists()


def test_unknown_names_and_splits(tmp_path, rows):
    with pytest.raises(UserError, match=r"Unknown problem set 'leetcode'\. Known: starter; or"):
        problem_source("leetcode", "train")
    with pytest.raises(UserError, match=r"Cannot read .*none\.jsonl: No such file"):
        problem_source(str(tmp_path / "none.jsonl"), "train")
    name = write(tmp_path / "set.jsonl", [row for row in rows if row["split"] == "train"])
    with pytest.raises(UserError, match="no split 'validation', only train"):
        problem_source(name, "validation")
    with pytest.raises(UserError, match="holds no problems"):
        problem_source(write(tmp_path / "empty.jsonl", []), "train")


def test_cache_that_cannot_be_written(tmp_path, rows, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Cannot keep the problem set.*RLIF_CACHE"):
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
