"""Evaluation in processes of its own: resuming after a kill, two on a mesh, one that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import ROOT
from support.small_evaluations import flags, small_arguments
from support.tiny import write_problems
from support.two_processes import free_address

from rlif_jax.evaluation.arguments import Arguments

LONG = {"n": 25, "k": 1, "max_new_tokens": 100, "slots": 4, "out": "result.json"}


@pytest.fixture(scope="module")
def long(tiny_path, tmp_path_factory):
    """Arguments for runs in processes of their own, which take long enough to be stopped."""
    folder = tmp_path_factory.mktemp("long")
    problems = write_problems(folder / "adding.jsonl")
    return Arguments(model=str(tiny_path), data=str(problems), **LONG)


def start(arguments, folder, *more):
    """The command in a folder of its own."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CI": "1"}
    environment["RLIF_CACHE"] = str(Path(arguments.data).parent / "cache")
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    return subprocess.Popen(
        [sys.executable, "-m", "rlif_jax.evaluate", *flags(arguments), *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process, status=0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def wait_for_lines(path, count, process):
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


FILES = ("result.json", "result.samples.jsonl")


@pytest.fixture(scope="module")
def whole(long, tmp_path_factory):
    """The bytes that a run without interruptions leaves."""
    folder = tmp_path_factory.mktemp("whole")
    finished(start(long, folder))
    return [(folder / name).read_bytes() for name in FILES]


@pytest.mark.slow
def test_killed_and_resumed_it_leaves_the_same_bytes(long, tmp_path, whole):
    """SIGKILL, then SIGTERM, at any point; no finished sample is drawn again."""
    folder = tmp_path / "killed"
    samples = folder / "result.samples.jsonl"
    process = start(long, folder)
    wait_for_lines(samples, 6, process)
    process.send_signal(signal.SIGKILL)
    finished(process, -signal.SIGKILL)
    left = samples.read_bytes().splitlines()
    assert len(left) < 1 + 2 * LONG["n"] and not (folder / "result.json").exists()
    process = start(long, folder)
    wait_for_lines(samples, len(left) + 5, process)
    process.send_signal(signal.SIGTERM)
    output = finished(process, 130)
    assert "stopped; run the same command to resume from result.samples.jsonl" in output
    between = samples.read_bytes().splitlines()
    assert between[: len(left) - 1] == left[: len(left) - 1]
    output = finished(start(long, folder))
    assert f"resuming after {len(between) - 1}" in output
    assert [(folder / name).read_bytes() for name in FILES] == whole


@pytest.mark.slow
def test_two_processes_on_a_mesh_find_the_same(long, tmp_path, whole):
    """Two devices of each share the rows; the first process writes, the second only helps."""
    address = free_address()
    mesh = ["--mesh.data=4", "--processes.count=2"]
    mesh.append(f"--processes.coordinator={address}")
    folders = [tmp_path / str(i) for i in range(2)]
    pair = [start(long, folders[i], *mesh, f"--processes.index={i}") for i in range(2)]
    for process in pair:
        finished(process)
    assert not list(folders[1].iterdir())
    rows = [
        [json.loads(line) for line in text.splitlines()[1:]]
        for text in ((folders[0] / "result.samples.jsonl").read_text(), whole[1].decode())
    ]
    assert len(rows[0]) == len(rows[1]) == 50
    # Sums that are split over devices round differently: a draw could flip, none does.
    for ours, theirs in zip(*rows, strict=True):
        assert ours["rewards"] == pytest.approx(theirs["rewards"], rel=1e-4, abs=1e-4)
        assert ours | {"rewards": 0} == theirs | {"rewards": 0}


@pytest.fixture
def arguments(tiny_path, tmp_path):
    return small_arguments(tiny_path, tmp_path)


def test_one_process_that_fails_ends_all(arguments, tmp_path):
    """A samples file of others on process 0, which the second cannot know."""
    address = free_address()
    asked = replace(arguments, out="result.json")
    for i in range(2):
        (tmp_path / str(i)).mkdir()
    (tmp_path / "0" / "result.samples.jsonl").write_text("[]\n")
    more = ["--mesh.data=2", "--processes.count=2", f"--processes.coordinator={address}"]
    pair = [start(asked, tmp_path / str(i), *more, f"--processes.index={i}") for i in range(2)]
    assert "holds the samples of another evaluation" in finished(pair[0], 2)
    pair[1].communicate(timeout=300)
    assert pair[1].returncode != 0
