"""Grading that resumes after an interruption at any byte, its output file, and what it prints."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from support import ROOT
from support.grading import ECHO, GOOD, sample

from rlif_jax import grade as grade_module
from rlif_jax.config import own_limits
from rlif_jax.config.processors import own_processors
from rlif_jax.console.meter import Meter
from rlif_jax.console.screen import Screen
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge, SandboxError
from rlif_jax.grading.graded_file import GradedFile, graded_row, skipped_row
from rlif_jax.grading.inputs import (
    Completion,
)
from rlif_jax.grading.tally import Tally
from rlif_jax.problem import Outcome, Verdict

# ---- resuming


COMPLETIONS = [Completion("ü", "a", True), Completion("e", "b", True), Completion("ü", None, True)]
OUTCOME = Outcome(Verdict.PASSED, (Verdict.PASSED,), 1, 0.5)
NONE = Outcome(Verdict.NO_CODE, (), 1, 0.0, "no code")
ROWS = [
    graded_row(COMPLETIONS[0], OUTCOME),
    skipped_row(COMPLETIONS[1], "interactive"),
    graded_row(COMPLETIONS[2], NONE),
]
SKIPPED = {"e": "interactive"}


def resumed(path):
    """(rows kept, rows in all) after resuming, and the bytes left in the file."""
    kept = []
    with GradedFile(path) as file:
        counts = file.resume(COMPLETIONS, SKIPPED, kept.append)
        assert kept == ROWS[: counts[0]]
        for row in ROWS[counts[0] :]:
            file.write(row)
    return counts


def test_a_file_cut_at_any_byte_is_completed(tmp_path):
    path = tmp_path / "graded.jsonl"
    assert resumed(path) == (0, 3)
    whole = path.read_bytes()
    assert [json.loads(line) for line in whole.splitlines()] == ROWS
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert resumed(path) == (whole[:cut].count(b"\n"), 3)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [b"notes of mine"],
        lambda lines: [b"notes of mine\n"],
        lambda lines: [b"\xff\xfe\n"],
        lambda lines: [b"\n", *lines],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[0]],
        lambda lines: [*lines, lines[0]],
        lambda lines: [*lines, lines[0][:5]],
        lambda lines: [lines[0], b'{"id": "other'],
        lambda lines: [lines[0].replace(b'"passed": true', b'"passed": false')],
        lambda lines: [lines[0].replace(b'"verdict": "passed"', b'"verdict": "fine"')],
        lambda lines: [lines[0].replace(b'"program": "', b'"program": "0')],
        lambda lines: [b'{"id": "\\u00fc"}\n'],
        lambda lines: [lines[0], lines[1].replace(b"interactive", b"bored")],
        lambda lines: [b"[" * 100_000 + b"\n"],
    ],
)
def test_another_file_is_refused_and_kept(tmp_path, change):
    path = tmp_path / "graded.jsonl"
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    content = b"".join(change(lines))
    path.write_bytes(content)
    with pytest.raises(UserError, match="Nothing was changed"):
        resumed(path)
    assert path.read_bytes() == content


def test_a_file_that_an_older_version_began_is_completed(tmp_path):
    """It called the verdicts of the tests `results` only; its rows stay as they are."""
    path = tmp_path / "graded.jsonl"
    older = {name: value for name, value in ROWS[0].items() if name != "tests"}
    path.write_text(json.dumps(older) + "\n")
    assert resumed(path) == (1, 3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [older, *ROWS[1:]]


def test_a_second_run_grades_only_what_is_missing(grading):
    codes = [ECHO, "print(2)", None, ECHO]
    grading.write([GOOD], [{"id": "good", "code": code} for code in codes])
    assert grading() == 0
    whole, rows = grading.out.read_bytes(), grading.rows
    summary = grading.shown.splitlines()[-1].rpartition("; ")[0]
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (ends[0] + 30, ends[2], len(whole) - 1):
        grading.out.write_bytes(whole[:cut])
        assert grading() == 0
        kept = whole[:cut].rpartition(b"\n")[0]
        assert grading.out.read_bytes().startswith(kept)
        assert f"resuming after row {len(kept.splitlines())}" in grading.shown
        assert summary in grading.shown
        timeless = [{**row, "seconds": 0} for row in grading.rows]
        assert timeless == [{**row, "seconds": 0} for row in rows]
    whole = grading.out.read_bytes()
    assert grading() == 0
    assert grading.shown == f"{summary}\n"
    assert grading.out.read_bytes() == whole


def test_results_of_other_programs_are_refused(grading):
    grading.write([GOOD], [{"id": "good", "code": ECHO}])
    assert grading() == 0
    before = grading.out.read_bytes()
    grading.write(completions=[{"id": "good", "code": f"{ECHO} "}])
    assert grading() == 2
    assert "graded.jsonl line 1 is not the result of completion 1 (id 'good')" in grading.errors
    assert grading.out.read_bytes() == before


def test_results_by_other_tests_or_options_are_refused(grading):
    """They would be those of before: nothing is judged again."""
    problem = sample("p", ("1", "2"))
    grading.write([problem], [{"id": "p", "code": "print(2.0000001)"}])
    assert grading() == 0
    assert grading.column("passed") == [False]
    before = grading.out.read_bytes()
    assert grading("--execution.workers", "1") == 0
    for flags in (
        ("--execution.numeric-tolerance", "1e-6"),
        ("--execution.memory-mb", "600"),
        ("--execution.time-limit-s", "3"),
        ("--run-all-tests",),
    ):
        assert grading(*flags) == 2
        assert "line 1 has the result of completion 1 (id 'p') by other tests" in grading.errors
    grading.write([sample("p", ("1", "2.0000001"))])
    assert grading() == 2
    assert grading.out.read_bytes() == before
    grading.write([problem])
    older = json.loads(before)
    del older["judged_by"]
    grading.out.write_text(json.dumps(older) + "\n")  # nobody knows
    assert grading("--run-all-tests") == 0


def test_ctrl_c_leaves_a_file_to_resume_from(grading):
    codes = [f"print(input())  # {i}" for i in range(6)]
    codes.append("while True: pass")
    codes += [f"print({i})" for i in range(3)]
    problem = sample("p", ("1", "1"), time_limit_s=5)
    grading.write([problem], [{"id": "p", "code": code} for code in codes])
    run = subprocess.Popen(
        [sys.executable, "-m", "rlif_jax.grade", *grading.arguments()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.poll() is None:
        if grading.out.exists() and grading.out.read_bytes().count(b"\n") == 6:
            break
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    shown, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert f"stopped; run the same command to resume from {grading.out}" in shown
    assert errors == ""
    assert grading.column("passed") == [True] * 6
    assert grading() == 0
    assert grading.column("verdict") == [
        *["passed"] * 6,
        "time_limit",
        "wrong_answer",
        "passed",
        "wrong_answer",
    ]


class FailingJudge(Judge):
    """A judge whose machinery fails for one program; the rest of it is real."""

    def submit(self, problem, code):
        future = super().submit(problem, code)
        if code == "fail":
            future.result()
            future = type(future)()
            future.set_exception(SandboxError("the worker ended twice"))
        return future


def test_failure_of_the_judge_is_no_verdict(grading, monkeypatch):
    monkeypatch.setattr(grade_module, "Judge", FailingJudge)
    codes = [ECHO, None, "fail", ECHO]
    grading.write([GOOD], [{"id": "good", "code": code} for code in codes])
    assert grading() == 1
    assert "the judge failed, not a program: the worker ended twice" in grading.errors
    assert grading.column("verdict") == ["passed", "no_code"]
    monkeypatch.setattr(grade_module, "Judge", Judge)
    assert grading() == 0
    assert grading.column("verdict") == ["passed", "no_code", "runtime_error", "passed"]


# ---- the output file


def test_outputs_that_cannot_be(grading, tmp_path):
    grading.write([GOOD], [{"id": "good", "code": ECHO}])
    problems = grading.problems.read_bytes()
    for out, message in (
        (tmp_path / "no" / "such.jsonl", "cannot be written: No such file or directory"),
        (tmp_path, "cannot be written: Is a directory"),
        (Path(os.devnull), "is not a regular file"),
        (grading.problems, "is also an input"),
        (grading.completions, "is also an input"),
    ):
        grading.out = out
        assert grading() == 2
        assert f"--out {out} {message}" in grading.errors
    assert grading.problems.read_bytes() == problems


def test_one_run_at_a_time(tmp_path):
    path = tmp_path / "graded.jsonl"
    with GradedFile(path), pytest.raises(UserError, match="is being written by another run"):
        GradedFile(path)
    GradedFile(path).__exit__(None, None, None)


def test_a_full_disk_leaves_whole_rows(tmp_path):
    """The limit on file sizes stands for the disk: it too takes a part of a row."""
    path = tmp_path / "graded.jsonl"
    line = len(json.dumps(ROWS[0])) + 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with GradedFile(path) as file:
        file.resume(COMPLETIONS, SKIPPED, lambda row: None)
        file.write(ROWS[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (line + 7, hard))
        try:
            with pytest.raises(UserError, match="cannot be written: File too large"):
                file.write(ROWS[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == line
    assert resumed(path) == (1, 3)


# ---- what a person sees


def test_summary_of_two_problems():
    tally = Tally()
    for name, verdict in [("a", "passed"), ("a", "no_code"), ("a", "passed"), ("b", "no_code")]:
        tally.add({"id": name, "passed": verdict == "passed", "verdict": verdict})
    tally.add({"id": "c", "skipped": "interactive"})
    assert tally.pass_at_1 == pytest.approx((2 / 3 + 0) / 2)
    assert tally.summary() == (
        "graded 4 completions of 2 problems: 2 passed (50.0%); pass@1 over problems 0.333; "
        "no_code 2, passed 2; 1 skipped, of problems in LiveCodeBench's errata"
    )
    tally.expected = 3
    assert (
        "pass@1 over problems 0.333; 1 problem has no completion, pass@1 over all 3 problems 0.222;"
    ) in tally.summary()


def progress_of(console, seconds_each, total, done=0):
    """What the console shows of `total` rows that take so long each by an injected clock."""
    now, tally = [0.0], Tally()
    with Meter(Screen(console), "grading", "programs", done, total, lambda: now[0]) as meter:
        for _ in range(total - done):
            now[0] += seconds_each
            tally.add({"id": "a", "passed": True, "verdict": "passed"})
            meter.count(tally.passed)
        console.print("", end="")
    return console.file.getvalue()


def plain_console():
    return Console(file=io.StringIO(), force_interactive=False, width=200)


def test_lines_in_a_pipe_are_sparse():
    assert progress_of(plain_console(), 0.001, 1000) == ""
    tenths = progress_of(plain_console(), 0.03, 1000).splitlines()
    assert tenths[0] == "100/1000  100 passed (100.0%)  33.33 programs/s  left 27s"
    assert tenths[-1] == "1000/1000  1000 passed (100.0%)  33.33 programs/s  left 0s"
    assert len(tenths) == 10
    minutes = progress_of(plain_console(), 30.0, 30, done=10).splitlines()
    assert minutes[0] == "12/30  2 passed (100.0%)  0.03 programs/s  left 9m00s"
    rows = [int(line.partition("/")[0]) for line in minutes]
    assert rows == [12, 14, 15, 17, 18, 20, 21, 23, 24, 26, 27, 29, 30]


def test_a_bar_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=100)
    shown = progress_of(console, 1.0, 3)
    assert "grading" in shown
    assert "3/3" in shown
    assert "3 passed (100.0%)  1.00 programs/s" in shown


def test_unknown_or_bad_flags(grading):
    grading.write([GOOD], [{"id": "good", "code": ECHO}])
    assert grading("--execution.workers=0") == 2
    assert "--execution.workers 0 must be at least 1" in grading.errors
    assert not grading.out.exists()
    assert grading("--runalltests") == 2


def test_default_workers_are_the_processors_of_this_process():
    execution = own_limits()
    assert execution.workers == own_processors()
    assert execution.memory_mb == 1024
