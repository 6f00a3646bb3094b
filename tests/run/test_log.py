"""The run folder: what is written, what survives kills, full disks and resumes, what is refused."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.run_folders import write_steps
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from rlif_jax.config import Config
from rlif_jax.errors import UserError
from rlif_jax.grading.judged_row import program_digest
from rlif_jax.problem import Outcome, Problem, Test, Verdict
from rlif_jax.run.log import RunLog, completion_records, last_step, truncate_after


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def events(folder: Path) -> list[Event]:
    """The events of every file in order of writing, read by the TFRecord framing."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            found.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


def test_events_are_framed_as_tensorboard_reads_them(tmp_path):
    """Lengths and checksums are those that tensorboardX writes."""
    write_steps(tmp_path, 1, 2)
    (path,) = (tmp_path / "tensorboard").iterdir()
    again = RecordWriter(str(tmp_path / "again"))
    for event in events(tmp_path):
        again.write(event.SerializeToString())
    again.close()
    assert len(events(tmp_path)) == 4
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def record(step: int) -> dict:
    return {"step": step, "reward/mean": step / 10}


def test_a_run_folder_holds_what_was_logged(tmp_path):
    values = {"reward/mean": np.float32(0.5), "eval/starter/avg@4": 0.25, "exec/passed": 1}
    with RunLog(tmp_path / "runs/a", Config(seed=7), {"device": "cpu"}) as log:
        log.metrics(1, values)
        # On disk at once, not when the run ends.
        assert lines(log.folder / "metrics.jsonl") == [{"step": 1, **values}]
        logged = events(log.folder)[-1]
    assert logged.step == 1
    assert {v.tag: v.simple_value for v in logged.summary.value} == values

    saved = json.loads((tmp_path / "runs/a/config.json").read_text())
    assert saved["config"]["seed"] == 7
    assert saved["config"]["reward"]["terms"] == [["tests_passed", 1.0]]
    assert saved["device"] == "cpu"
    assert saved["versions"].keys() == {"python", "rlif_jax", "jax", "flax", "optax"}
    assert "revision" in saved


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_by_name(tmp_path, bad):
    with RunLog(tmp_path, Config()) as log:
        log.metrics(1, {"loss/policy": 0.0})
        with pytest.raises(UserError, match=rf"Step 2 .* grad/norm = {bad}\."):
            log.metrics(2, {"loss/policy": 0.0, "grad/norm": bad})
        with pytest.raises(UserError, match=r"Row 1 of step 2 \(problem q\)"):
            log.rollouts(2, [{"problem": "p", "reward": 0.0}, {"problem": "q", "reward": bad}])
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss/policy": 0.0}]
    assert list((tmp_path / "rollouts").iterdir()) == []


def test_completion_records_follow_the_row_order(tmp_path):
    test = Test("1\n", "1\n", "stdin")
    problems = [Problem("p0", "?", (test,)), Problem("p1", "?", (test,))]
    passed, wrong = Verdict.PASSED, Verdict.WRONG_ANSWER
    records = completion_records(
        problems,
        ["ask 0", "ask 1"],
        ["a", "b\nc", "\u00e9\u2028", "\ud800"],  # the last is no Unicode text
        ["a", None, "x = 1", None],
        reward=np.array([1, 0, 0.5, 0], np.float32),
        terms={"tests_passed": np.array([1, 0, 0, 0], np.float32)},
        advantage=np.array([1, -1, 1, -1], np.float32),
        outcomes=[Outcome(passed, (passed,), 1, 0.1)] + [Outcome(wrong, (wrong,), 1, 0.1)] * 3,
        length=np.array([3, 4, 5, 6], np.int32),
        truncated=np.array([False, False, False, True]),
        tokens=np.arange(24, dtype=np.int32).reshape(4, 6),
        keys=np.arange(8, dtype=np.uint32).reshape(4, 2),
        policy={"step": 11, "digest": "abc"},
    )
    with RunLog(tmp_path, Config()) as log:
        log.rollouts(12, records)
    written = (tmp_path / "rollouts/step_000012.jsonl").read_bytes().split(b"\n")
    assert written.pop() == b""
    assert [json.loads(line) for line in written] == records
    assert [(r["problem"], r["prompt"], r["sample"]) for r in records] == [
        ("p0", "ask 0", 0),
        ("p0", "ask 0", 1),
        ("p1", "ask 1", 0),
        ("p1", "ask 1", 1),
    ]
    assert records[0] == {
        "problem": "p0",
        "id": "p0",
        "passed": True,
        "verdict": "passed",
        "tests": ["passed"],
        "tests_run": 1,
        "tests_total": 1,
        "detail": "",
        "program": program_digest("a"),
        "sample": 0,
        "prompt": "ask 0",
        "completion": "a",
        "code": "a",
        "reward": 1.0,
        "terms": {"tests_passed": 1.0},
        "advantage": 1.0,
        "length": 3,
        "truncated": False,
        "tokens": [0, 1, 2],
        "key": [0, 1],
        "policy": {"step": 11, "digest": "abc"},
    }
    assert records[3]["truncated"] is True
    assert "\u00e9" in written[2].decode()


def test_without_outcomes_there_is_no_verdict():
    problem = Problem("p", "?", (Test("", "", "stdin"),))
    kwargs = {"reward": [0.0], "terms": {}, "advantage": [0.0], "length": [1], "truncated": [0]}
    kwargs |= {"tokens": [[7]], "keys": [[0, 1]], "policy": {}}
    (only,) = completion_records([problem], ["?"], ["a"], [None], outcomes=None, **kwargs)
    assert only["verdict"] is None and only["tests"] is None and only["code"] is None
    assert only["passed"] is None and only["id"] == "p"


class Whole:
    """An array that counts how often it is read, and is not read number by number."""

    def __init__(self, values):
        self.values, self.reads = np.asarray(values), 0

    def __array__(self, dtype=None, copy=None):
        self.reads += 1
        return self.values


def test_records_read_each_array_once():
    """Reading JAX arrays number by number asks the devices for each: 3.4 s for 256 rows."""
    problem = Problem("p", "?", (Test("", "", "stdin"),))
    numbers = {name: Whole([0.5, 1.5]) for name in ("reward", "advantage", "truncated")}
    numbers |= {"length": Whole([1, 2]), "tokens": Whole([[3, 4]] * 2), "keys": Whole([[5, 6]] * 2)}
    terms = {name: Whole([0.25, 0.75]) for name in ("a", "b")}
    first, second = completion_records(
        [problem], ["?"], ["x", "y"], [None, None], outcomes=None, terms=terms, policy={}, **numbers
    )
    assert {array.reads for array in (*numbers.values(), *terms.values())} == {1}
    assert (first["reward"], second["terms"]) == (0.5, {"a": 0.75, "b": 0.75})


# --- resume


def test_a_resume_drops_what_the_checkpoint_does_not_cover(tmp_path):
    write_steps(tmp_path, 1, 2, 3, 4)
    (tmp_path / "rollouts/step_000005.jsonl.tmp").write_text("{")
    for name in ("step_000001", "step_000003", "step_000004", "step_000005"):
        (tmp_path / f"rollouts/{name}.tokens.npz").write_text("")
    (tmp_path / "rollouts/step_000001.tokens.npz.tmp").write_text("")
    write_steps(tmp_path, 3, resume_step=2)
    assert lines(tmp_path / "metrics.jsonl") == [record(1), record(2), record(3)]
    names = sorted(p.name for p in (tmp_path / "rollouts").iterdir())
    names.remove("step_000001.tokens.npz")
    assert names == [f"step_00000{n}.jsonl" for n in (1, 2, 3)]
    starts = [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [0, 3]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_run_without_a_checkpoint_starts_over(tmp_path):
    write_steps(tmp_path, 0, 1, 2)
    write_steps(tmp_path, 0, 1)
    assert lines(tmp_path / "metrics.jsonl") == [record(0), record(1)]
    assert not (tmp_path / "rollouts/step_000002.jsonl").exists()


def test_a_half_written_last_line_is_dropped(tmp_path):
    assert last_step(tmp_path) == -1
    write_steps(tmp_path, 1, 2)
    assert last_step(tmp_path) == 2
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for torn in (b"{", b'{"step": 2, "rew', b'{"step": 2, "reward/mean": "\xc3'):
        path.write_bytes(whole + torn)
        assert last_step(tmp_path) == 2
        truncate_after(tmp_path, 2)
        assert path.read_bytes() == whole
    truncate_after(tmp_path, -1)
    assert path.read_bytes() == b""
    truncate_after(tmp_path / "not_there", 0)


@pytest.mark.parametrize("line", ["oops", "3", '{"reward/mean": 1.0}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"Line 2 of .*metrics.jsonl"):
        truncate_after(tmp_path, 5)
    assert path.read_bytes() == before


def test_a_killed_process_leaves_whole_lines(tmp_path):
    program = f"""
import itertools
from pathlib import Path
from rlif_jax.config import Config
from rlif_jax.run.log import RunLog
with RunLog(Path({str(tmp_path)!r}), Config()) as log:
    for step in itertools.count(1):
        log.metrics(step, {{"reward/mean": step / 10}})
        if step == 5:
            print("five", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"five\n"
        child.send_signal(signal.SIGKILL)
    with RunLog(tmp_path, Config(), resume_step=3) as log:
        log.metrics(4, {"reward/mean": 0.4})
    assert lines(tmp_path / "metrics.jsonl") == [record(n) for n in (1, 2, 3, 4)]


# --- disks that fail


def test_a_device_without_space_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(UserError, match=r"metrics.jsonl could not be written: No space left.*Free"),
        RunLog(tmp_path, Config()) as log,
    ):
        log.metrics(1, {"reward/mean": 0.0})


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from rlif_jax.config import Config
from rlif_jax.errors import exit_on_user_error
from rlif_jax.run.log import RunLog

folder, limit, keys, characters = Path(sys.argv[1]), *map(int, sys.argv[2:])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with exit_on_user_error(), RunLog(folder, Config()) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for step in range(1, 1000):
        log.metrics(step, {str(key): step / 3 for key in range(keys)})
        log.rollouts(step, [{"problem": "p", "completion": "x" * characters}])
"""


# Of many long numbers metrics.jsonl is the larger file, of few short ones the TensorBoard file.
@pytest.mark.parametrize(
    ("name", "keys", "characters"),
    [("metrics.jsonl", 30, 10), ("tensorboard", 1, 10), ("step_000001.jsonl", 1, 9000)],
)
def test_a_file_that_cannot_grow_leaves_whole_records(tmp_path, name, keys, characters):
    """At a file-size limit the kernel takes a part of the last write, then fails, as on a disk."""
    limit = 4001
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *map(str, (tmp_path, limit, keys, characters))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2, run.stderr
    assert f"{name} could not be written: File too large. Free some space" in run.stderr
    assert "Traceback" not in run.stderr and "Exception ignored" not in run.stderr
    logged = lines(tmp_path / "metrics.jsonl")
    last = len(logged)
    assert [line["step"] for line in logged] == list(range(1, last + 1))
    size = (tmp_path / "metrics.jsonl").stat().st_size
    if name == "metrics.jsonl":
        assert last > 1 and limit - size < size / last  # another line had no room
    # The rollouts of the step that failed are not there, neither in part nor under another name.
    whole = [f"step_{step:06d}.jsonl" for step in range(1, last + (name == "metrics.jsonl"))]
    assert sorted(os.listdir(tmp_path / "rollouts")) == whole


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="--run-dir"), RunLog(tmp_path / "run", Config()):
        pass
