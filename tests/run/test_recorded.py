"""What differs first between two records of a step, in the order in which a step makes it."""

import copy
import json

import pytest

from rlif_jax.config import Config
from rlif_jax.errors import UserError
from rlif_jax.run.log import RunLog
from rlif_jax.run.recorded import (
    RecordedStep,
    check_recorded,
    first_difference,
    recorded_steps,
)

POLICY = {"step": 6, "digest": "aa"}


def recorded() -> RecordedStep:
    rows = [
        {
            "problem": f"p{row // 2}",
            "sample": row % 2,
            "key": [row, 1],
            "prompt": "say " + "x" * 80 + f"{row // 2}",
            "tokens": [10 * row, 10 * row + 1, 2],
            "completion": f"text {row}",
            "code": None,
            "verdict": "wrong_answer",
            "tests": ["passed", "wrong_answer"],
            "detail": "printed 3",
            "terms": {"tests_passed": 0.0, "length": 3.0},
            "reward": 0.25,
            "advantage": -0.5,
            "policy": POLICY,
        }
        for row in range(4)
    ]
    parameters = {"embed": "01", "layers.q": "02"}
    return RecordedStep.of({"key": [0, 5], "policy": POLICY, "parameters": parameters}, rows)


def change_row(row: int, name: str, value):
    def change(step: RecordedStep) -> None:
        step.rows[row][name] = value

    return change


def change_line(name: str, value):
    def change(step: RecordedStep) -> None:
        step.provenance[name] = value

    return change


CHANGES = [  # in the order of a step
    ("key", change_line("key", [0, 6]), "the random key of the run was [0, 5] and is now [0, 6]"),
    (
        "key",
        change_row(1, "key", [9, 9]),
        "the random key of row 1 (sample 1 of p0) was [1, 1] and is now [9, 9]",
    ),
    (
        "problem",
        change_row(2, "problem", "q"),
        "the problem of row 2 (sample 0 of p1) was 'p1' and is now 'q'",
    ),
    (
        "prompt",
        change_row(0, "prompt", "say " + "x" * 80 + "7"),
        "the prompt of row 0 (sample 0 of p0), from character 84 on, was '0' and is now '7'",
    ),
    (
        "policy",
        change_line("policy", {"step": 6, "digest": "bb"}),
        "the parameters that drew it were those of step 6 with digest aa and are now those of "
        "step 6 with digest bb",
    ),
    (
        "token",
        change_row(3, "tokens", [30, 7, 2]),
        "token 1 of row 3 (sample 1 of p1) was 31 and is now 7",
    ),
    (
        "completion",
        change_row(0, "completion", "other"),
        "the completion of row 0 (sample 0 of p0) was 'text 0' and is now 'other'",
    ),
    (
        "program",
        change_row(0, "code", "x = 1"),
        "the program of row 0 (sample 0 of p0) was None and is now 'x = 1'",
    ),
    (
        "verdict",
        change_row(2, "verdict", "passed"),
        "the verdict of row 2 (sample 0 of p1) was 'wrong_answer' and is now 'passed'",
    ),
    (
        "term",
        change_row(1, "terms", {"tests_passed": 0.0, "length": 4.0}),
        "the reward term length of row 1 (sample 1 of p0) was 3.0 and is now 4.0",
    ),
    (
        "reward",
        change_row(1, "reward", 0.25000002),
        "the reward of row 1 (sample 1 of p0) was 0.25 and is now 0.25000002",
    ),
    (
        "count",
        lambda step: step.rows.append(step.rows[3]),
        "4 completions were drawn and are now 5",
    ),
    (
        "advantage",
        change_row(0, "advantage", 0.5),
        "the advantage of row 0 (sample 0 of p0) was -0.5 and is now 0.5",
    ),
    (
        "parameter",
        change_line("parameters", {"embed": "01", "layers.q": "03"}),
        "the digest of parameter layers.q after the step was '02' and is now '03'",
    ),
]


@pytest.mark.parametrize(("what", "change", "sentence"), CHANGES)
def test_each_difference_has_a_sentence(what, change, sentence):
    now = recorded()
    change(now)
    found = first_difference(7, recorded(), now)
    assert (found.step, found.what, found.sentence) == (7, what, sentence)
    assert str(found) == f"step 7: {sentence}"


def test_of_several_differences_the_one_that_a_step_makes_first_is_named():
    now = recorded()
    for what, change, sentence in reversed(CHANGES):
        change(now)
        found = first_difference(7, recorded(), now)
        assert found.what == what
        # Another problem has another place, which the sentence quotes as it was recorded.
        assert found.sentence == sentence


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ([0, 1], "token 2 of row 0 (sample 0 of p0) was 2 and is now missing"),
        ([0, 1, 2, 4], "token 3 of row 0 (sample 0 of p0) was missing and is now 4"),
    ],
)
def test_a_completion_that_ends_earlier_or_later(tokens, sentence):
    now = recorded()
    now.rows[0]["tokens"] = tokens
    assert first_difference(7, recorded(), now).sentence == sentence


def test_a_verdict_of_one_test_is_compared_and_what_a_program_said_is_not():
    now = recorded()
    now.rows[1]["detail"] = "printed 4"
    assert first_difference(7, recorded(), now) is None
    now.rows[1]["tests"] = ["wrong_answer", "wrong_answer"]
    assert first_difference(7, recorded(), now).sentence == (
        "the result of each test of row 1 (sample 1 of p0) was ['passed', 'wrong_answer'] and is "
        "now ['wrong_answer', 'wrong_answer']"
    )


def test_steps_are_read_back_as_they_were_logged(tmp_path):
    step = recorded()
    with RunLog(tmp_path, Config()) as log:
        for number in (1, 2):
            log.rollouts(number, step.rows)
            log.provenance(number, step.provenance)
    steps = recorded_steps(tmp_path, 1, 3)
    assert list(steps) == [1, 2]
    check_recorded(tmp_path, steps, 1, 2)
    for number, found in steps.items():
        assert first_difference(number, step, found) is None
        assert found.provenance["step"] == number
    with pytest.raises(UserError, match=r"step 3: provenance.jsonl has steps 1 to 2. Choose"):
        check_recorded(tmp_path, steps, 2, 3)

    older = [{k: v for k, v in row.items() if k != "key"} for row in copy.deepcopy(step.rows)]
    path = tmp_path / "rollouts/step_000002.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in older))
    with pytest.raises(UserError, match=r"step 2: .* its completions are not all there"):
        check_recorded(tmp_path, recorded_steps(tmp_path, 1, 2), 1, 2)
    path.unlink()
    with pytest.raises(UserError, match="step 2"):
        check_recorded(tmp_path, recorded_steps(tmp_path, 1, 2), 1, 2)
    path.write_text("{\n")
    with pytest.raises(UserError, match=r"step_000002.jsonl cannot be read"):
        recorded_steps(tmp_path, 1, 2)


def test_a_resume_drops_the_provenance_that_its_checkpoint_does_not_cover(tmp_path):
    for resume, numbers in ((None, (1, 2, 3)), (1, (2,))):
        with RunLog(tmp_path, Config(), resume_step=resume) as log:
            for number in numbers:
                log.provenance(number, {"key": [resume, 0]})
        with (tmp_path / "provenance.jsonl").open("a") as file:
            file.write('{"step": 4, "ke')
    with RunLog(tmp_path, Config(), resume_step=2):
        lines = (tmp_path / "provenance.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "key": [None, 0]},
        {"step": 2, "key": [1, 0]},
    ]
