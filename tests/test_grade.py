"""Grading: real programs against both forms of problems, resumption at any byte, refusals."""

import base64
import gc
import hashlib
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from rich.console import Console

from rlif_jax import grade as grade_module
from rlif_jax.data.graded_file import GradedFile, graded_row, skipped_row
from rlif_jax.data.grading_files import (
    CACHED_PROBLEMS,
    Completion,
    ProblemFile,
    problem_from_sample,
    read_completions,
)
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge, SandboxError
from rlif_jax.grade import Report, Tally, main
from rlif_jax.problem import Outcome, Problem, Test, Verdict

ROOT = Path(__file__).parent.parent
ECHO = "print(input())"


def sample(name, *pairs, fn_name=None, **fields):
    """An evaluation sample with pairs of input and output."""
    cases = {"inputs": [i for i, _ in pairs], "outputs": [o for _, o in pairs]}
    if fn_name:
        cases["fn_name"] = fn_name
    return {"id": name, "input_output": json.dumps(cases)} | fields


def official(name, private, func_name=None, **fields):
    """A dataset row with one public test that echoes 1."""
    kind = "functional" if func_name else "stdin"
    return {
        "question_id": name,
        "question_content": "?",
        "starter_code": "",
        "public_test_cases": json.dumps([{"input": "1", "output": "1", "testtype": kind}]),
        "private_test_cases": private,
        "metadata": json.dumps({"func_name": func_name} if func_name else {}),
    } | fields


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


class Grading:
    """Files of one grading, and the command on them."""

    def __init__(self, folder, capsys):
        self.problems, self.completions = folder / "problems.jsonl", folder / "completions.jsonl"
        self.out = folder / "graded.jsonl"
        self.capsys = capsys
        self.shown = self.errors = ""

    def write(self, problems=None, completions=None):
        for path, rows in ((self.problems, problems), (self.completions, completions)):
            if rows is not None:
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def arguments(self, *flags):
        files = (self.problems, self.completions, self.out)
        names = ("--problems", "--completions", "--out")
        pairs = [text for pair in zip(names, map(str, files), strict=True) for text in pair]
        return [*pairs, "--execution.workers=2", "--execution.allow-weak-isolation", *flags]

    def __call__(self, *flags):
        """Run the command; return its exit status."""
        status = 0
        try:
            main(self.arguments(*flags))
        except SystemExit as end:
            status = end.code
        self.shown, self.errors = self.capsys.readouterr()
        return status

    @property
    def rows(self):
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def column(self, name):
        return [row.get(name) for row in self.rows]


@pytest.fixture
def grading(tmp_path, capsys):
    return Grading(tmp_path, capsys)


# ---- problems


def test_every_form_of_a_problem(grading):
    private = json.dumps([{"input": "é", "output": "é", "testtype": "stdin"}])
    numbers = json.dumps([{"input": "[3]", "output": "[3]", "testtype": "functional"}])
    grading.write(
        [
            sample("text", ("5", "5"), ("6", "6"), note="other fields are fine"),
            {"id": "object", "input_output": {"inputs": ["7"], "outputs": ["7"], "fn_name": None}},
            {"id": "lines", "input_output": {"inputs": [["8", "9"]], "outputs": ["8\n9"]}},
            sample("function", ("1\n2", "3"), ("[1]\n[2]", "[1, 2]"), fn_name="add"),
            official("plain", private),
            official("packed", packed(private)),
            official("packed function", packed(numbers), func_name="same"),
        ],
        [
            {"id": "text", "code": ECHO},
            {"id": "object", "code": ECHO},
            {"id": "lines", "code": "print(input())\nprint(input())"},
            {"id": "function", "code": "def add(a, b):\n    return a + b"},
            {"id": "plain", "code": ECHO},
            {"id": "packed", "code": ECHO},
            {"id": "packed function", "code": "class Solution:\n    def same(self, x): return x"},
            {"id": "function", "code": "def add(a, b):\n    return 3"},
        ],
    )
    assert grading("--run-all-tests") == 0
    assert grading.column("passed") == [True] * 7 + [False]
    assert grading.column("tests_total") == [2, 1, 1, 2, 2, 2, 2, 2]
    assert grading.column("tests_run") == grading.column("tests_total")
    assert grading.rows[-1]["results"] == ["passed", "wrong_answer"]
    assert grading.shown.splitlines()[-1].startswith(
        "graded 8 completions of 7 problems: 7 passed (87.5%); pass@1 over problems 0.929; "
        "passed 7, wrong_answer 1; "
    )


class MakesFolder:
    """Creates a folder when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_is_refused_and_does_nothing(grading, tmp_path):
    grading.write(
        [sample("good", ("1", "1")), official("evil", packed(MakesFolder(tmp_path / "made")))],
        [{"id": "good", "code": ECHO}],
    )
    assert grading() == 2
    assert "problems.jsonl line 2 (question_id 'evil')" in grading.errors
    assert "pickle that is refused" in grading.errors
    assert not (tmp_path / "made").exists()
    assert not grading.out.exists()


def test_sample_becomes_problem():
    row = sample("p", ("1\n2", "3"), fn_name="add", time_limit_s=2, platform="atcoder", n=1)
    assert problem_from_sample(row) == Problem(
        id="p",
        prompt="",
        tests=(Test("1\n2", "3", "functional", private=True),),
        entry_point="add",
        time_limit_s=2.0,
        metadata={"platform": "atcoder"},
    )


def test_time_limit_of_the_row_or_else_the_given_one(tmp_path):
    path = tmp_path / "problems.jsonl"
    limited = official("limited row", "[]", metadata=json.dumps({"time_limit_s": 9}))
    rows = [sample("s", ("1", "1")), sample("limited", ("1", "1"), time_limit_s=0.5)]
    rows += [official("row", "[]"), limited]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for problems, default in ((ProblemFile(path), 6.0), (ProblemFile(path, 3.0), 3.0)):
        limits = {row: problems[row].time_limit_s for row in ("s", "limited", "row", "limited row")}
        assert limits == {"s": default, "limited": 0.5, "row": default, "limited row": 9.0}


def test_problems_are_found_again_and_not_held(tmp_path):
    """Blank lines, multi-byte text and a last line without an end do not shift the places."""
    path = tmp_path / "problems.jsonl"
    count = 4 * CACHED_PROBLEMS
    rows = [
        json.dumps(sample(f"läng{i}", (f"é{i}", str(i))), ensure_ascii=False) for i in range(count)
    ]
    path.write_text("\n\n".join(rows))

    def living():
        gc.collect()
        return sum(isinstance(o, Problem) and o.id.startswith("läng") for o in gc.get_objects())

    problems = ProblemFile(path)
    assert len(problems) == count
    assert living() == 0
    for i in [*range(count), 0, count - 1]:
        assert problems[f"läng{i}"].tests == (Test(f"é{i}", str(i), "stdin", private=True),)
    assert 0 < living() <= CACHED_PROBLEMS


def test_grading_holds_few_problems(grading, monkeypatch):
    count, seen = 150, []

    class Watched(ProblemFile):
        def __getitem__(self, problem_id):
            problem = super().__getitem__(problem_id)
            seen.append(
                sum(isinstance(o, Problem) and o.id in self for o in gc.get_objects())
                if problem_id.endswith("9")
                else 0
            )
            return problem

    monkeypatch.setattr(grade_module, "ProblemFile", Watched)
    names = [f"held{i}" for i in range(count)]
    grading.write(
        [sample(name, ("1", "1")) for name in names],
        [{"id": name, "code": ECHO if i % 5 == 0 else None} for i, name in enumerate(names)],
    )
    assert grading() == 0
    assert len(seen) == count
    assert 0 < max(seen) <= CACHED_PROBLEMS + 4 * grade_module.UNFINISHED_PER_WORKER


def test_file_that_changes_meanwhile(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(sample("a", ("1", "1"))))
    problems = ProblemFile(path)
    path.write_text(json.dumps(sample("b", ("1", "1"))))
    with pytest.raises(UserError, match="line 1 has changed while it was in use"):
        problems["a"]
    path.unlink()
    with pytest.raises(UserError, match="Cannot read the problems"):
        problems["a"]


GOOD = sample("good", ("1", "1"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "a row must be a JSON object of strings, not [1]"),
        ({"id": "a"}, "field question_id is missing"),
        ({"input_output": "{}"}, "field id is None; give each problem an id"),
        (sample(7, ("1", "1")), "field id is 7; give each problem an id, as text"),
        (sample("", ("1", "1")), "field id is ''"),
        (sample("\ud800", ("1", "1")), "half of a surrogate pair"),
        ({"id": "a", "input_output": "{"}, "(id 'a'): field input_output is not JSON"),
        ({"id": "a", "input_output": "[]"}, "(id 'a'): field input_output must be an object"),
        ({"id": "a", "input_output": 3}, "(id 'a'): field input_output must be an object"),
        ({"id": "a", "input_output": {"inputs": ["1"]}}, "outputs of input_output must be a list"),
        (
            {"id": "a", "input_output": {"inputs": ["1", "2"], "outputs": ["1"]}},
            "(id 'a'): field input_output has 2 inputs and 1 outputs",
        ),
        (sample("a"), "(id 'a'): no tests in input_output"),
        (official("a", "[]", public_test_cases="[]"), "(question_id 'a'): no tests"),
        (sample("a", (1, "1")), "inputs[0] of input_output is 1; it must be text or a list"),
        (sample("a", (["1", 2], "1")), "inputs[0] of input_output is ['1', 2]"),
        (sample("a", ("1", ["1"])), "outputs[0] of input_output is ['1']; it must be text (JSON"),
        (sample("a", ("1", "\udc80")), "input_output, outputs[0] holds '\\udc80'"),
        (sample("a", ("1", "1"), fn_name="a b"), "fn_name 'a b', which is not the name"),
        (sample("a", ("1", "1"), time_limit_s=0), "field time_limit_s is 0, not a positive"),
        (sample("a", ("1", "1"), time_limit_s=1e6), "field time_limit_s is 1000000.0, not a"),
        (sample("a", ("1", "1"), time_limit_s="6"), "field time_limit_s is '6', not a positive"),
        (sample("a", ("x", "1"), fn_name="f"), "(id 'a'): test 1 of the function 'f' has 'x'"),
        (sample("a", ("1", "1"), ("1\n", "1 2"), fn_name="f"), "test 2 of the function 'f'"),
        (sample("a", ("1", "[" * 100_000), fn_name="f"), "which is not JSON"),
        (official("a", packed(["[]"])), "pickle that is refused"),
        (GOOD, "the id 'good' was already used at"),
    ],
)
def test_bad_problems_are_refused_before_any_program_runs(grading, row, message):
    grading.write([GOOD, row], [{"id": "good", "code": ECHO}])
    assert grading() == 2
    assert message in grading.errors
    assert f"{grading.problems} line 2" in grading.errors
    assert not grading.out.exists()


def test_long_numbers_are_json(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(sample("a", ("9" * 6000, "NaN"), fn_name="f")))
    assert ProblemFile(path)["a"].tests[0].input == "9" * 6000


# ---- completions


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x", "'x' is not a completion; each row is an object"),
        ({"code": ECHO}, "is not a completion"),
        ({"id": 1, "code": ECHO}, "is not a completion"),
        ({"id": "other", "code": ECHO}, "there is no problem with the id 'other'"),
        ({"id": "good"}, "(id 'good'): neither a program nor a model's text"),
        ({"id": "good", "code": 3}, "as text, not 3"),
        ({"id": "good", "completion": None}, "as text, not None"),
    ],
)
def test_bad_completions_are_refused_before_any_program_runs(grading, row, message):
    grading.write([GOOD], [{"id": "good", "code": ECHO}, row])
    assert grading() == 2
    assert message in grading.errors
    assert f"{grading.completions} line 2" in grading.errors
    assert not grading.out.exists()


def test_programs_of_completions(tmp_path):
    path = tmp_path / "completions.jsonl"
    text = "<think>```python\nno\n```</think>So:\n```python\nyes\n```\n"
    rows = [{"code": "a"}, {"code": None}, {"completion": text}, {"completion": "no fence"}]
    rows += [{"code": "b", "completion": text}, {"completion": "```python\ncut off"}]
    path.write_text("".join(json.dumps({"id": "p", **row}) + "\n" for row in rows))
    found = [completion.code for completion in read_completions(path, {"p"})]
    assert found == ["a", None, "yes", None, "b", None]


@pytest.mark.parametrize("name", ["problems", "completions"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a file of"), (b"", "holds no"), (b"\xff\n", "line 1: not a JSON object")],
)
def test_bad_files(grading, name, content, message):
    grading.write([GOOD], [{"id": "good", "code": ECHO}])
    path = getattr(grading, name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert grading() == 2
    assert f"{path} {message}" in grading.errors or f"{path}" in grading.errors
    assert message in grading.errors


# ---- verdicts


def test_verdicts_in_the_order_of_the_completions(grading):
    """The slow one comes first, and its row does, too."""
    pair = [sample("p", ("1", "1"), ("2", "2"), ("3", "3"), time_limit_s=0.5)]
    cases = [
        ("import time; time.sleep(0.7); print(input())", "passed", 3),
        ("while True: pass", "time_limit", 1),
        ("print(2)", "wrong_answer", 1),
        ("n = int(input()); print(n); assert n != 2", "runtime_error", 2),
        ("print(", "compile_error", 1),
        ("print('x' * 10**6)", "output_limit", 1),
        ("x = bytearray(10**9); print(input())", "memory_limit", 1),
        (None, "no_code", 0),
        ("", "no_code", 0),
        (ECHO, "passed", 3),
    ]
    grading.write(pair, [{"id": "p", "code": code} for code, _, _ in cases])
    assert grading("--execution.output-kb=64", "--execution.memory-mb=256") == 0
    assert grading.column("verdict") == [verdict for _, verdict, _ in cases]
    assert grading.column("tests_run") == [run for _, _, run in cases]
    assert grading.column("passed") == [verdict == "passed" for _, verdict, _ in cases]
    assert set(grading.column("tests_total")) == {3}
    assert grading.rows[3]["results"] == ["passed", "runtime_error"]
    assert "AssertionError" in grading.rows[3]["detail"]
    assert grading.column("detail")[-1] == ""
    for row, (code, _, run) in zip(grading.rows, cases, strict=True):
        digest = None if code is None else hashlib.sha256(code.encode()).hexdigest()[:16]
        assert row["program"] == digest
        assert (row["seconds"] > 0) == (run > 0)
    summary = grading.shown.splitlines()[-1]
    assert summary.startswith("graded 10 completions of 1 problems: 2 passed (20.0%)")
    assert "pass@1 over problems 0.200" in summary
    assert "no_code 2" in summary


def test_a_bound_on_every_time_limit(grading):
    spin = "import time\nwhile time.process_time() < 0.6: pass\nprint(input())"
    problems = [sample("own", ("1", "1"), time_limit_s=5), sample("none", ("1", "1"))]
    grading.write(problems, [{"id": "own", "code": spin}, {"id": "none", "code": spin}])
    assert grading("--execution.time-limit-s=0.3") == 0
    assert grading.column("verdict") == ["time_limit", "time_limit"]
    for flags in ((), ("--execution.time-limit-s=1e9",)):
        grading.out.unlink()
        assert grading(*flags) == 0
        assert grading.column("verdict") == ["passed", "passed"]


def test_more_programs_than_wait_in_line(grading, monkeypatch):
    """With room for two results ahead of a slow first program, order and number still hold."""
    monkeypatch.setattr(grade_module, "AHEAD_PER_WORKER", 1)
    monkeypatch.setattr(grade_module, "UNFINISHED_PER_WORKER", 1)
    codes = ["import time; time.sleep(0.4); print(input())"] + [f"print({i})" for i in range(20)]
    grading.write([GOOD], [{"id": "good", "code": code} for code in codes])
    assert grading() == 0
    digests = [hashlib.sha256(code.encode()).hexdigest()[:16] for code in codes]
    assert grading.column("program") == digests
    assert [i for i, passed in enumerate(grading.column("passed")) if passed] == [0, 2]


# ---- the errata


def test_errata_are_skipped_unless_asked_for(grading):
    grading.write(
        [official("abc337_e", "[]", platform="atcoder"), official("abc337_e2", "[]")],
        [{"id": name, "code": ECHO} for name in ("abc337_e", "abc337_e2", "abc337_e")],
    )
    assert grading() == 0
    skipped = {"id": "abc337_e", "skipped": "interactive"}
    assert [grading.rows[0], grading.rows[2]] == [skipped, skipped]
    assert grading.rows[1]["passed"]
    whole = "graded 1 completions of 1 problems: 1 passed (100.0%); pass@1 over problems 1.000; "
    whole += "passed 1; 2 skipped, of problems in LiveCodeBench's errata"
    assert whole in grading.shown
    before = grading.out.read_bytes()
    assert grading("--keep-errata") == 2
    assert "line 1 is not the result of completion 1 (id 'abc337_e')" in grading.errors
    assert grading.out.read_bytes() == before
    grading.out.unlink()
    assert grading("--keep-errata") == 0
    assert grading.column("passed") == [True, True, True]


def test_nothing_but_errata(grading):
    grading.write(
        [official("abc337_e", "[]", platform="atcoder")], [{"id": "abc337_e", "code": ECHO}]
    )
    assert grading() == 0
    assert "graded 0 completions of 0 problems; 1 skipped" in grading.shown


# ---- going on


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
        assert f"going on after row {len(kept.splitlines())}" in grading.shown
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


def test_ctrl_c_leaves_a_file_to_go_on_from(grading):
    codes = [f"print(input())  # {i}" for i in range(6)]
    codes.append("while True: pass")
    codes += [f"print({i})" for i in range(3)]
    problem = sample("p", ("1", "1"), time_limit_s=120)
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
    assert f"stopped; the same command goes on from {grading.out}" in shown
    assert errors == ""
    assert grading.column("passed") == [True] * 6
    assert grading("--execution.time-limit-s=0.2") == 0
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


def test_a_full_disk_leaves_a_file_to_go_on_from(tmp_path):
    """The limit on file sizes stands for the disk: it too cuts a row in the middle."""
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
    assert path.stat().st_size == line + 7
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


def progress_of(console, seconds_each, total, done=0):
    """What the console shows of `total` rows that take so long each by an injected clock."""
    now, tally = [0.0], Tally()
    with Report(done, total, console, lambda: now[0]) as report:
        for _ in range(total - done):
            now[0] += seconds_each
            tally.add({"id": "a", "passed": True, "verdict": "passed"})
            report.count(tally)
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
    assert "execution.workers=0 must be at least 1" in grading.errors
    assert not grading.out.exists()
    assert grading("--runalltests") == 2


def test_default_workers_are_the_processors_of_this_process():
    execution = grade_module._execution()
    assert execution.workers == len(os.sched_getaffinity(0))
    assert execution.memory_mb == 1024
