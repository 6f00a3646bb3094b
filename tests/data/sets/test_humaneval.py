"""HumanEval: its 164 problems, and the real judge's verdicts beside those of plain Python."""

import json
import subprocess
import sys

import pytest

from rlif_jax import config
from rlif_jax.data.formats.livecodebench import problem_from_row, row_from_problem
from rlif_jax.data.sets.humaneval import humaneval_problems
from rlif_jax.execution.pool import Judge
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Outcome, Verdict

EXECUTION = config.Execution(workers=2, time_limit_s=10.0)


@pytest.fixture(scope="module")
def problems():
    return [problem for _, problem in humaneval_problems()]


@pytest.fixture(scope="module")
def judge():
    with Judge(EXECUTION) as judge:
        yield judge


def judged(judge: Judge, problems: list, programs: list[str]) -> list[Outcome]:
    futures = [judge.submit(*pair) for pair in zip(problems, programs, strict=True)]
    return [future.result(timeout=120) for future in futures]


def test_there_are_164_problems_in_order(problems):
    assert [problem.id for problem in problems] == [f"HumanEval/{n}" for n in range(164)]
    places = [place for place, _ in humaneval_problems()]
    assert places[0].endswith("HumanEval.jsonl.gz line 1") and len(set(places)) == 164
    for problem in problems:
        check_judgeable(problem, problem.id)
        assert problem_from_row(row_from_problem(problem)) == problem


def test_canonical_solutions_pass_and_programs_that_return_nothing_do_not(problems, judge):
    solutions = [problem.metadata["solution"] for problem in problems]
    assert {outcome.verdict for outcome in judged(judge, problems, solutions)} == {Verdict.PASSED}
    nothing = [f"def {problem.entry_point}(*a, **k): return None" for problem in problems]
    assert not any(outcome.passed for outcome in judged(judge, problems, nothing))


def test_a_program_needs_not_repeat_what_the_prompt_has_before_the_function(problems, judge):
    """As a chat model may answer: the function alone."""
    pairs = [(p, f"def {p.entry_point}(") for p in problems]
    bare = [head + p.metadata["solution"].partition(head)[2] for p, head in pairs]
    assert sum(code != p.metadata["solution"] for p, code in zip(problems, bare, strict=True)) > 30
    assert all(outcome.passed for outcome in judged(judge, problems, bare))


REFERENCE = """
import contextlib, io, json, sys
results = []
for source in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()):
        try: exec(source, {})
        except BaseException: results.append(False)
        else: results.append(True)
print(json.dumps(results))
"""
CHANGES = (
    "tuple(r) if type(r) is list else list(r) if type(r) is tuple else r",
    "int(r) if type(r) is bool else float(r) if type(r) is int else r",
    "r + 1e-5 if type(r) is float else set(r) if type(r) is list else r",
    "r or None",
    "str(r)",
)


@pytest.mark.parametrize("change", CHANGES)
def test_verdicts_are_those_of_plain_python(problems, judge, change):
    """Of programs whose results are almost right, run as the official harness puts them together:

    program, test and call as one text.
    """
    after = "\n_f = {0}\ndef {0}(*a, **k):\n    r = _f(*a, **k)\n    return {1}\n"
    programs = [p.metadata["solution"] + after.format(p.entry_point, change) for p in problems]
    whole = [f"{c}\n{p.tests[0].input}" for p, c in zip(problems, programs, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps(whole),
        capture_output=True,
        text=True,
        timeout=120,
    )
    expected = json.loads(done.stdout)
    assert 0 < sum(expected) < 164
    verdicts = [outcome.passed for outcome in judged(judge, problems, programs)]
    different = [p.id for p, v, e in zip(problems, verdicts, expected, strict=True) if v != e]
    assert different == []
