"""The check of a problem file: every fault with its line, real solutions, overlap, exit status."""

import functools
import json
import signal
import subprocess
import sys

import pytest
from support.own_rows import PAIR, SUM, own, write_rows

from rlif_jax.check import main
from rlif_jax.data.findings import check_rows, usable_problems
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Writes rows, or lines as they are, and gives the path of the file."""
    return functools.partial(write_rows, tmp_path)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs the command; gives exit status, lines of standard output, and standard error."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))

    def run_main(*argv: object) -> tuple[int, list[str], str]:
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in argv])
        printed = capsys.readouterr()
        return end.value.code, printed.out.splitlines(), printed.err

    return run_main


# ---- the command


def test_file_without_fault(write, run):
    asserts = own("e", tests=["assert f(2) == 4"], entry_point="f", solution="f = lambda x: 2 * x")
    status, lines, error = run(write(own("a", solution=SUM), own("b"), asserts))
    assert (status, error) == (0, "")
    assert lines == [
        f"3 problems in 3 rows of {lines[0].rpartition(' ')[2]}",
        "kind: stdin 2, assert 1",
        "tests per problem: 1 to 1, median 1",
        "solutions: 2, of which 2 pass",
        "faults: none",
    ]


def test_tests_that_a_solution_fails(write, run, tmp_path):
    call = [{"input": [n], "output": n} for n in range(9)]
    path = write(
        own("right", solution=SUM),
        own("wrong", tests=[PAIR, PAIR | {"output": "8"}], solution=SUM),
        own("asserts", tests=["assert f(1)", "assert f(0)"], entry_point="f", solution="f = abs"),
        own("slow", solution="while True: pass", time_limit_s=0.5),
        own("syntax", solution="print(", tests=[PAIR] * 3),
        own("many", tests=call, entry_point="f", solution="def f(x):\n    return 0"),
        "{",
    )
    status, lines, _ = run(path, "--json", tmp_path / "out.json")
    assert status == 1
    out = json.loads((tmp_path / "out.json").read_text())
    faults = {fault["id"]: fault for fault in out["faults"]}
    assert list(faults) == ["wrong", "asserts", "slow", "syntax", "many", ""]
    messages = {name: fault["message"] for name, fault in faults.items()}
    assert "fails 1 of 2 tests (2 wrong_answer): test 2: " in messages["wrong"]
    assert "fails 1 of 2 tests (2 wrong_answer): test 2: " in messages["asserts"]
    assert "fails 1 of 1 tests (1 time_limit)" in messages["slow"]
    assert "fails all 3 tests: test 1: " in messages["syntax"]
    assert "fails 8 of 9 tests (2 wrong_answer, " in messages["many"]
    assert "6 wrong_answer and 3 more): test 2: returned '0'" in messages["many"]
    assert faults["wrong"] == {
        "line": 2,
        "id": "wrong",
        "kind": "solution",
        "message": messages["wrong"],
    }
    assert out["summary"]["solutions_passed"] == 1
    assert (out["file"], out["against"]) == (str(path), [])
    assert f"{path} line 2 (id 'wrong'): solution: {messages['wrong']}" in lines
    assert lines[-2:] == ["solutions: 6, of which 1 pass", "faults: solution 5, bad row 1"]


def test_tests_that_need_more_of_the_solution_than_its_function(write, run):
    """Their message says so, and that of tests that lack anything else does not."""
    code = (
        "import bisect as find\nclass Box:\n    def __init__(self, w): self.w = w\n"
        "SCALE: int = 2\ndef one(): return Box(1)\ndef area(b): return SCALE * b.w + missing\n"
    )
    tests = {
        "class": ["assert area(Box(3)) == 6"],
        "setup": ["box = Box(3)\nassert area(box) == 6"],
        "second": ["assert area(None) == 6 or True", "assert area(one()) == 2"],
        "value": ["assert area(SCALE)"],
        "import": ["assert area(find.bisect([], 1))"],
        "unknown": ["assert area(Bax(3)) == 6"],
        "inside": ["class Box:\n    w = 3\nassert area([3])"],
        "raised": ["assert area(3)"],
        "broken": ["assert area(Box(3)) == 6"],
    }
    rows = [own(n, tests=t, entry_point="area", solution=code) for n, t in tests.items()]
    rows[2]["solution"] = code.replace("return SCALE", "return 0 if b is None else SCALE")
    rows[-1]["solution"] = "def area(b: return 6\nclass Box: pass"
    rows[7]["solution"] = "missing = 1\ndel missing\ndef area(b): return missing"
    path = write(*rows)
    status, lines, _ = run(path)
    assert status == 1
    faults = [line for line in lines if ": solution: " in line]
    assert len(faults) == len(rows)
    needed = dict(zip(tests, ["Box", "Box", "one", "SCALE", *[""] * 5], strict=True))
    for line, name in zip(faults, needed.values(), strict=True):
        if name:
            assert f"NameError: name '{name}' is not defined; a test can call only area" in line
            assert f"also needs {name} of the program: write the tests without it" in line
            assert line.endswith("or remove the row.")
        else:
            assert line.endswith("; correct the tests or the solution.")


def test_solutions_that_differ_only_in_numbers_or_among_several_answers(write, run, tmp_path):
    third = [{"input": n, "output": o} for n, o in [("1", "0.33333333"), ("2", "0.66666667")]]
    rounded = "print(f'{int(input()) / 3:.7f}')"
    edges = [{"input": "3", "output": "1 2\n2 3"}]
    other = "print('3 2\\n2 1')"
    any_order = "Print the edges of the tree in any\n order."
    path = write(
        own("close", tests=third, solution=rounded),
        own("close as text", tests=[{"input": "1", "output": "0.5 a"}], solution="print('0.5 b')"),
        own("far", tests=[*third, {"input": "3", "output": "1.1"}], solution=rounded),
        own("edges", prompt=any_order, tests=edges, solution=other),
        own("crash", prompt=f"{any_order} It crashes.", tests=edges, solution="1 / 0"),
        own("one", prompt="Print the edges.", tests=edges, solution=other),
        own("slow", solution="while True: pass", time_limit_s=0.2),
        own(
            "big",
            tests=[{"input": [1], "output": 1}],
            entry_point="f",
            solution="def f(n): return len([0] * 10 ** 10)",
        ),
    )
    status, lines, _ = run(path, "--json", tmp_path / "out.json")
    assert status == 1
    report = json.loads((tmp_path / "out.json").read_text())
    remedy = {f["id"]: f["message"].rpartition("; ")[2] for f in report["faults"]}
    numbers = (
        "its outputs differ from the expected ones only in numbers, by at most 1e-06: judge this "
        "set with --execution.numeric-tolerance=1e-06, or correct the tests."
    )
    assert remedy == {
        "close": numbers,
        "close as text": "correct the tests or the solution.",
        "far": "correct the tests or the solution.",
        "edges": 'the statement says "in any order", so several answers may be right of which the '
        "tests accept one: remove the row, or correct the tests or the solution.",
        "crash": "correct the tests or the solution.",
        "one": "correct the tests or the solution.",
        "slow": "raise the row's time limit, or correct the solution.",
        "big": "raise --execution.memory-mb, or correct the solution.",
    }
    assert report["summary"]["solutions_passed"] == 0
    assert report["summary"]["solutions_close"] == 1
    assert (
        "solutions: 8, of which 0 pass, and 1 more with --execution.numeric-tolerance=1e-06"
        in lines
    )


def test_a_file_that_is_one_array(write, run):
    rows = [own("a"), own("b", prompt="b" * 500)]
    for text in (json.dumps(rows), json.dumps(rows, indent=2)):
        path = write(text, name="rows.json")
        status, lines, error = run(path)
        assert (status, lines) == (2, [])
        assert error.startswith(f"error: {path} begins with '[': it is one JSON array")
        assert error.count("\n") == 1 and "bbb" not in error
        for skip in (False, True):
            with pytest.raises(UserError, match="it is one JSON array, not a row in each line"):
                problem_source(f"jsonl:{path}", skip_bad=skip)


def test_types_and_matches_may_pass(write, run):
    kinds = {
        "task_id": 1,
        "text": "Drop them.",
        "test_list": ["assert drop((1, 'a'), int) == ['a']"],
        "code": "def drop(v, kind):\r\n  return [x for x in v if type(x) is not kind]\r",
    }
    match = {
        "task_id": 2,
        "prompt": "Find a.",
        "test_list": ["assert has_a('ab')", "assert not has_a('b')"],
        "code": "import re\rdef has_a(s): return re.search('a', s)",
    }
    status, lines, _ = run(write(kinds, match))
    assert (status, lines[-2:]) == (0, ["solutions: 2, of which 2 pass", "faults: none"])


def test_solutions_need_not_be_run(write, run):
    status, lines, _ = run(write(own("a", solution="print(")), "--no-run-solutions")
    assert status == 0
    assert "solutions: 1, which were not run" in lines


def test_against_sets_and_files(write, run):
    other = write(own("b"), name="other.jsonl")
    path = write(own("a"), own("b"))
    status, lines, _ = run(path, "--against", "starter", other)
    assert status == 1
    assert [line for line in lines if "overlap" in line] == [
        f"{path} line 2 (id 'b'): overlap: the same id as 'b' of {other}; do not train on it if "
        "that is evaluated on.",
        "faults: overlap 1",
    ]
    assert [line for line in lines if line.startswith("compared")] == [
        "compared with starter",
        f"compared with {other}",
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none.jsonl"], "none.jsonl is not a file of problems"),
        (["."], "is not a file of problems"),
        (["empty.jsonl"], "empty.jsonl holds no problems"),
        (["set.jsonl", "--against", "livecodebech"], "Unknown problem set 'livecodebech'"),
        (["set.jsonl", "--json", "no/such/folder.json"], "there is no such folder"),
        (["set.jsonl", "--json", "."], "--json . cannot be written"),
        (["set.jsonl", "--execution.workers", "0"], "workers"),
    ],
)
def test_what_cannot_be_checked(write, run, monkeypatch, tmp_path, argv, message):
    write(own("a"))
    write("", name="empty.jsonl")
    monkeypatch.chdir(tmp_path)
    status, lines, error = run(*argv)
    assert status == 2
    assert error.startswith("error: ") and message in error
    assert lines == []


def test_started_as_a_module(write):
    path = write(own("a"), own("b", solution="print("))
    command = [sys.executable, "-m", "rlif_jax.check", str(path), "--no-run-solutions"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"2 problems in 2 rows of {path}" in done.stdout.splitlines()


def test_signal_stops_it(write, run):
    def stop(number, frame):
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # not yet at work
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        else:
            signal.raise_signal(signal.SIGTERM)

    path = write(*(own(f"p{n}", solution="while True: pass") for n in range(50)))
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        status, lines, _ = run(path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert status == 130
    assert lines[-1] == "stopped; nothing was written"


# ---- what is built from a file


@pytest.mark.parametrize(
    "rows",
    [
        [own("a"), own("b", tests=[])],
        [own("a"), own("a", prompt="Another.")],
        [own("a", split="train"), own("b")],
        [own("a"), own("b", contest_date="soon")],
    ],
)
def test_what_the_check_refuses_is_no_problem_set(write, run, rows):
    path = write(*rows)
    assert check_rows(path)[0]
    with pytest.raises(UserError, match=r"set\.jsonl line 2"):
        problem_source(str(path))


def test_what_the_check_finds_no_fault_with_is_a_problem_set(write, run, make_row):
    mbpp = {"task_id": 1, "text": "One.", "code": "", "test_list": ["assert one() == 1"]}
    path = write(own("a"), make_row("abc1"), mbpp)
    assert check_rows(path)[0] == []
    source = problem_source(str(path))
    assert [source[i] for i in range(3)] == [p for _, p in usable_problems(path, {1, 2, 3})]


# ---- what is printed


def test_rows_without_private_tests_are_used_with_one_warning(write, run, make_row):
    rows = [make_row(f"p{n}") for n in range(5)]
    for row in rows:
        del row["private_test_cases"]
    path = write(*rows)
    status, lines, _ = run(path)
    assert status == 0
    assert lines[0].startswith(f"{path} line 1 (id 'p0') and 4 more rows (line 2, id 'p1'; ")
    assert ": warning: field private_test_cases is missing: " in lines[0]
    assert lines[1] == f"5 problems in 5 rows of {path}"
    assert lines[-1] == "faults: none"


def test_a_file_of_bytes_that_are_no_text_is_one_fault(write, run, tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"".join(b'{"id": "%d\xff"}\n' % n * 2 for n in range(50)))
    status, lines, _ = run(path)
    assert status == 1
    assert lines[0].startswith(f"{path} line 1 and 99 more rows (line 2; line 3; line 4; ...): bad")
    assert lines[1:] == [f"0 problems in 100 rows of {path}", "solutions: 0", "faults: bad row 100"]
