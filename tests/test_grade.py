"""Grading: real programs against both forms of problems, in order."""

import dataclasses
import gc
import hashlib
import json

from support.grading import ECHO, GOOD, official, packed, sample

from rlif_jax import grade as grade_module
from rlif_jax.data.vote_inputs import vote_problem
from rlif_jax.grading import judging
from rlif_jax.grading.inputs import (
    CACHED_PROBLEMS,
    ProblemFile,
    problem_from_sample,
    read_completions,
)
from rlif_jax.grading.judging import UNFINISHED_PER_WORKER
from rlif_jax.problem import Problem, Test

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
    assert 0 < max(seen) <= CACHED_PROBLEMS + 4 * UNFINISHED_PER_WORKER


def test_long_numbers_are_json(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(sample("a", ("9" * 6000, "NaN"), fn_name="f")))
    assert ProblemFile(path)["a"].tests[0].input == "9" * 6000
    row = {"id": "b", "prompt": "p", "entry_point": "f", "tests": [{"input": [1], "output": 2}]}
    path.write_text(json.dumps(row).replace("[1]", f"[{'9' * 6000}]"))  # a number in the row itself
    problem = ProblemFile(path)["b"]
    assert problem.tests[0].input == "9" * 6000
    public = dataclasses.replace(problem.tests[0], private=False)
    voted = vote_problem(dataclasses.replace(problem, tests=(public,)), "fuzz", 3)
    assert len(voted.tests) == 4


def test_programs_of_completions(tmp_path):
    path = tmp_path / "completions.jsonl"
    text = "<think>```python\nno\n```</think>So:\n```python\nyes\n```\n"
    rows = [{"code": "a"}, {"code": None}, {"completion": text}, {"completion": "no fence"}]
    rows += [{"code": "b", "completion": text}, {"completion": "```python\ncut off"}]
    rows += [{"completion": None}, {"completion": ""}, {"code": None, "completion": text}]
    path.write_text("".join(json.dumps({"id": "p", **row}) + "\n" for row in rows))
    found = [completion.code for completion in read_completions(path, {"p"})]
    assert found == ["a", None, "yes", None, "b", None, None, None, None]


def test_rows_without_a_program_are_graded_as_such(grading):
    rows = [
        {"code": None},
        {"completion": None},
        {"code": ""},
        {"completion": " \n"},
        {"code": ECHO},
    ]
    grading.write([GOOD], [{"id": "good", **row} for row in rows])
    assert grading() == 0
    assert grading.column("verdict") == ["no_code"] * 4 + ["passed"]
    assert grading() == 0  # once more, from the rows that are there
    assert "no_code 4, passed 1" in grading.shown.splitlines()[-1]


def test_problems_without_a_completion_are_counted_as_failed_in_the_rate_over_all(grading):
    problems = [sample(name, ("1", "1")) for name in "abcd"]
    grading.write(problems, [{"id": "b", "code": ECHO}, {"id": "b", "code": "x"}])
    for _ in range(2):  # the second time all is done already
        assert grading() == 0
        assert grading.shown.splitlines()[-1].startswith(
            "graded 2 completions of 1 problems: 1 passed (50.0%); pass@1 over problems 0.500; "
            "3 problems have no completion, pass@1 over all 4 problems 0.125; "
            "passed 1, runtime_error 1"
        )


HALF = {
    "task_id": "half",
    "prompt": 'def half(n: int) -> int:\n    """Halve."""\n',
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n",
}


def test_a_completion_may_be_the_body_of_the_function_that_the_problem_begins(grading):
    """As in the files of HumanEval's own harness, which runs prompt + completion."""
    body = "    # half\n    return n // 2\n"
    fenced = f"```python\n{body}```"
    rows = [("half", "completion", body), ("half", "code", f"\n{body}")]
    rows += [("half", "completion", fenced), ("half", "completion", "\treturn n // 2")]
    rows += [("half", "completion", "    return n\n"), ("half", "completion", "return n // 2")]
    rows += [("half", "completion", f" Here:\n```python\n{body}"), ("good", "completion", body)]
    grading.write([HALF, GOOD], [{"id": name, field: text} for name, field, text in rows])
    assert grading() == 0
    verdicts = ["passed"] * 3 + ["compile_error", "wrong_answer"] + ["no_code"] * 3
    assert grading.column("verdict") == verdicts
    assert grading() == 0


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
    monkeypatch.setattr(judging, "AHEAD_PER_WORKER", 1)
    monkeypatch.setattr(judging, "UNFINISHED_PER_WORKER", 1)
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
