"""A judged completion is written by the same names by training, evaluation and grading."""

import json
from dataclasses import replace

import jax
import pytest
from support.tiny import write_problems

from rlif_jax.config import Execution, ProblemOptions
from rlif_jax.evaluation.drawing import held_out, make_evaluation
from rlif_jax.evaluation.sample_file import SampleFile
from rlif_jax.execution.pool import Judge
from rlif_jax.grading.graded_file import graded_row
from rlif_jax.grading.inputs import Completion
from rlif_jax.grading.judged_row import JUDGED, in_common_names, judged_row, program_digest
from rlif_jax.problem import Outcome, Problem, Test, Verdict
from rlif_jax.run.log import completion_records
from rlif_jax.sampler.pool_shape import Batching

CODE = "print(1)"
PASSED, WRONG = Verdict.PASSED, Verdict.WRONG_ANSWER
OUTCOME = Outcome(WRONG, (PASSED, WRONG), 3, 0.25, "test 2: printed '1'")
PROBLEM = Problem("p", "?", (Test("", "", "stdin"),) * 3)
COMMON = {
    "id": "p",
    "passed": False,
    "verdict": "wrong_answer",
    "tests": ["passed", "wrong_answer"],
    "tests_run": 2,
    "tests_total": 3,
    "detail": "test 2: printed '1'",
    "program": program_digest(CODE),
}


def rollout_row(outcome=OUTCOME, code=CODE):
    numbers = {name: [0.0] for name in ("reward", "advantage")}
    numbers |= {"length": [1], "truncated": [0], "tokens": [[7]], "keys": [[0, 1]]}
    outcomes = None if outcome is None else [outcome]
    (row,) = completion_records(
        [PROBLEM], ["?"], ["text"], [code], outcomes=outcomes, terms={}, policy={}, **numbers
    )
    return row


def sample_row(tiny, monkeypatch, tmp_path):
    """A row of an evaluation whose judge answers with the outcome."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    graphdef, params, tokenizer = tiny
    problems = held_out(
        str(write_problems(tmp_path / "a.jsonl")), tokenizer, ProblemOptions(max_prompt_tokens=400)
    )
    one = replace(
        problems,
        problems=[PROBLEM],
        statements=[PROBLEM],
        prompts=problems.prompts[:1],
    )
    evaluate = make_evaluation(
        graphdef,
        tokenizer,
        one,
        samples_per_problem=1,
        temperature=1.0,
        max_new_tokens=2,
        batching=Batching(slots=1, page=8),
    )
    rows = []
    with Judge(Execution(workers=1)) as judge:
        evaluate(params, jax.random.key(0), judge, lambda row, stats: rows.append(row))
    return rows[0]


def test_the_three_files_say_the_same_by_the_same_names(tiny, monkeypatch, tmp_path):
    graded = graded_row(Completion("p", CODE, True), OUTCOME)
    for row in (graded, rollout_row(), json.loads(json.dumps(judged_row("p", CODE, OUTCOME)))):
        assert {name: row[name] for name in JUDGED} == COMMON
    sampled = sample_row(tiny, monkeypatch, tmp_path)
    nothing = Outcome(Verdict.NO_CODE, (), 3, 0.0, "no code")
    assert {name: sampled[name] for name in JUDGED} == judged_row("p", None, nothing)
    # What two of them add goes by one name, too, and the names that scripts know are there.
    assert {"completion", "code", "length", "truncated"} <= sampled.keys() & rollout_row().keys()
    assert graded["results"] == graded["tests"] and rollout_row()["problem"] == "p"
    assert rollout_row(None, None) | dict.fromkeys(JUDGED[1:]) == rollout_row(None, None)


OLDER = {
    "graded": {
        "id": "p",
        "passed": False,
        "verdict": "wrong_answer",
        "results": ["passed", "wrong_answer"],
        "tests_run": 2,
        "tests_total": 3,
        "seconds": 0.25,
        "detail": "test 2: printed '1'",
        "program": program_digest(CODE),
    },
    "samples": {
        "problem": 0,
        "sample": 0,
        "id": "p",
        "completion": "text",
        "code": CODE,
        "passed": False,
        "verdict": "wrong_answer",
        "tests": ["passed", "wrong_answer"],
        "tests_total": 3,
        "length": 4,
        "truncated": False,
    },
    "rollouts": {
        "problem": "p",
        "sample": 0,
        "completion": "text",
        "code": CODE,
        "verdict": "wrong_answer",
        "tests": ["passed", "wrong_answer"],
        "length": 4,
        "truncated": False,
    },
}


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [("graded", ()), ("samples", ("detail",)), ("rollouts", ("detail", "tests_total"))],
)
def test_rows_of_older_versions_are_read(kind, lacking):
    row = in_common_names(OLDER[kind])
    assert {name: row.get(name, "lacking") for name in JUDGED} == COMMON | dict.fromkeys(
        lacking, "lacking"
    )
    assert row | OLDER[kind] == row
    assert in_common_names(row) == row


def test_rows_of_this_version_are_read_as_they_are():
    for row in (graded_row(Completion("p", CODE, True), OUTCOME), rollout_row(), rollout_row(None)):
        assert list(in_common_names(row).items()) == list(row.items())
    assert in_common_names({"id": "p", "skipped": "why"}) == {"id": "p", "skipped": "why"}


def test_samples_that_an_older_version_began_are_resumed(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"n": 2}\n' + json.dumps(OLDER["samples"]) + "\n")
    with SampleFile(path, {"n": 2}, 1, 2, ("passed", "code")) as file:
        assert file.rows[0, 0] == in_common_names(OLDER["samples"])
        file.write({"problem": 0, "sample": 1, **judged_row("p", CODE, OUTCOME), "code": CODE})
        file.finish()
    _, first, second = map(json.loads, path.read_text().splitlines())
    assert first["tests_run"] == second["tests_run"] == 2
    assert first["program"] == second["program"]
