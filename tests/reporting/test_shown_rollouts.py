"""Which completions a page holds, and that they come out of it as they went in."""

import base64
import gzip
import json

import numpy as np
import pytest
from support.reported_runs import arc, completion, write_run

from rlif_jax.errors import UserError
from rlif_jax.reporting.evaluations import read_evaluation
from rlif_jax.reporting.recorded_runs import RecordedRun
from rlif_jax.reporting.shown_rollouts import (
    LONGEST,
    MOST_ROWS,
    ByCorrectness,
    pooled,
    shown_rollouts,
    shown_samples,
    worth_showing,
)
from rlif_jax.run.token_record import TokenRecord, token_file

ROWS = [completion("print(1)", True, reward=2.0), completion("no", reward=0.5)]


def unpacked(step) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(step.packed)))


def run_of(tmp_path, rollouts, metrics=None, name="one", **fields):
    folder = write_run(tmp_path / name, metrics or arc(0.3, 0.1), rollouts, **fields)
    return RecordedRun.read(folder)


def test_the_steps_that_say_most_come_first(tmp_path):
    """The last and the first, the best evaluated (5), the one that tells a collapse (14)."""
    run = run_of(tmp_path, {n: ROWS for n in range(1, 21)}, arc(0.3, 0.1, collapses=True))
    steps = worth_showing(run)
    assert steps[:5] == [20, 1, 5, 14, 17]
    assert sorted(steps) == list(range(1, 21))
    assert worth_showing(run_of(tmp_path, {}, name="none")) == []


def test_what_the_page_holds_of_a_completion(tmp_path):
    code = completion("say\nprint(1)\n", True, code="print(1)", reward=2.5, terms={"a": 2.5})
    (steps,), _ = shown_rollouts([run_of(tmp_path, {1: [code]})], 10**6)
    (step,) = steps
    assert (step.step, step.rows, step.of) == (1, 1, 1)
    held = unpacked(step)
    assert held["prompts"] == [{"id": "p1", "t": "Add two numbers.", "tests": []}]
    (row,) = held["rows"]
    assert (row["p"], row["s"], row["t"], row["code"]) == (0, 0, "say\nprint(1)\n", [4, 12])
    assert (row["v"], row["tests"], row["of"]) == ("passed", ["passed"], 2)
    assert (row["r"], row["terms"], row["n"]) == (2.5, {"a": 2.5}, 3)
    assert "shades" not in row


def test_the_tests_of_a_problem_come_from_its_set(tmp_path):
    row = completion("x", id="starter_easy_string_length")
    (steps,), _ = shown_rollouts([run_of(tmp_path, {1: [row]})], 10**6)
    (prompt,) = unpacked(steps[0])["prompts"]
    assert prompt["tests"][0] == ['"hello"', "5"]


def test_each_run_has_a_step_and_the_rest_is_shared_within_the_budget(tmp_path):
    noise = np.random.default_rng(0).integers(0x20, 0x7E, (9, 3000)).astype(np.uint8)
    rollouts = {n: [completion(bytes(noise[n]).decode())] for n in range(1, 9)}
    runs = [run_of(tmp_path, rollouts, name=name) for name in "ab"]
    few, _ = shown_rollouts(runs, 1)
    assert [[step.step for step in steps] for steps in few] == [[8], [8]]
    size = len(few[0][0].packed)
    some, _ = shown_rollouts(runs, int(5.2 * size))
    assert [[step.step for step in steps] for steps in some] == [[1, 5, 8], [1, 8]]
    every, _ = shown_rollouts(runs, 100 * size)
    assert [len(steps) for steps in every] == [8, 8]


def test_a_step_larger_than_its_share_has_fewer_rows(tmp_path):
    noise = np.random.default_rng(0).integers(0x20, 0x7E, (8, 3000)).astype(np.uint8)
    rollouts = {1: [completion(bytes(row).decode()) for row in noise]}
    runs = [run_of(tmp_path, rollouts, name=name) for name in "ab"]
    whole, _ = shown_rollouts(runs, 10**6)
    size = len(whole[0][0].packed)
    less, rewards = shown_rollouts(runs, int(1.2 * size))
    assert [(step.rows, step.of) for steps in less for step in steps] == [(4, 8), (4, 8)]
    assert rewards[0][0].of == 8  # of all that were read


def test_long_texts_and_many_rows_are_cut_and_counted(tmp_path):
    rows = [completion("a" * 1_000_000, passed=n == 0) for n in range(MOST_ROWS + 5)]
    (steps,), _ = shown_rollouts([run_of(tmp_path, {1: rows})], 10**6)
    assert (steps[0].rows, steps[0].of) == (MOST_ROWS, MOST_ROWS + 5)
    row = unpacked(steps[0])["rows"][0]
    assert (row["t"], row["more"]) == ("a" * LONGEST, 1_000_000 - LONGEST)
    assert len(steps[0].packed) < 20_000


@pytest.mark.parametrize("text", ["</script><script>", "\u202eabc", "\ud800 alone", "\x00\x1b[0m"])
def test_hostile_texts_come_out_as_they_went_in(tmp_path, text):
    (steps,), _ = shown_rollouts([run_of(tmp_path, {1: [completion(text)]})], 10**6)
    assert unpacked(steps[0])["rows"][0]["t"] == text
    assert steps[0].packed.isascii()
    assert "<" not in steps[0].packed


def test_tokens_end_where_javascript_counts(tmp_path):
    """An emoji is two of its units. Probabilities 1, 1/2, 0; a byte is a 255th."""
    run = run_of(tmp_path, {1: [completion("no"), completion("a🙂b", code="b")]})
    f16 = np.float16
    record = TokenRecord(
        lengths=np.array([1, 3], np.uint32),
        logprob=np.array([0, 0, -np.log(2), -1e4], f16),
        entropy=np.array([0, 0, 4.0, 12.0], f16),
        self_certainty=np.zeros(4, f16),
        probability_disparity=np.array([1, 1, 0.2, 0], f16),
        ends=np.array([2, 1, 2, 3], np.uint32),
    )
    token_file(run.folder, 1).write_bytes(record.encoded())
    (steps,), _ = shown_rollouts([run], 10**6)
    row = unpacked(steps[0])["rows"][1]
    assert row["ends"] == [1, 2, 1]
    assert row["code"] == [3, 4]
    assert list(base64.b64decode(row["shades"])) == [255, 127, 0, 0, 128, 255, 255, 51, 0]


def test_rewards_of_correct_and_of_incorrect_responses(tmp_path):
    rows = [*ROWS, completion("no", reward=1.5)]
    _, (found,) = shown_rollouts([run_of(tmp_path, {1: rows, 2: ROWS[:1]})], 10**6)
    assert found == [ByCorrectness(1, 2.0, 1.0, 1, 3), ByCorrectness(2, 2.0, None, 1, 1)]
    other = [ByCorrectness(1, 5.0, 4.0, 2, 3), ByCorrectness(3, None, 7.0, 0, 1)]
    assert pooled([*found, *other]) == [
        ByCorrectness(1, 4.0, 2.0, 3, 6),
        ByCorrectness(2, 2.0, None, 1, 1),
        ByCorrectness(3, None, 7.0, 0, 1),
    ]


def test_rewards_are_those_of_all_responses(tmp_path):
    """Also of those that the page does not show."""
    rows = [completion("x", passed=n >= MOST_ROWS, reward=float(n)) for n in range(MOST_ROWS + 2)]
    (steps,), (found,) = shown_rollouts([run_of(tmp_path, {1: rows})], 10**6)
    assert steps[0].rows == MOST_ROWS
    wrong = (MOST_ROWS - 1) / 2
    assert found == [ByCorrectness(1, MOST_ROWS + 0.5, wrong, 2, MOST_ROWS + 2)]


def test_completions_that_were_not_judged(tmp_path):
    rows = [completion("x") | {"passed": None, "verdict": None, "tests": None}]
    (steps,), (rewards,) = shown_rollouts([run_of(tmp_path, {1: rows})], 10**6)
    assert steps[0].rows == 1 and rewards == []


def test_a_damaged_file_is_refused_and_half_a_line_left_out(tmp_path):
    run = run_of(tmp_path, {1: ROWS})
    path = run.folder / "rollouts" / "step_000001.jsonl"
    path.write_text(path.read_text() + '{"half')
    assert shown_rollouts([run], 10**6)[0][0][0].of == 2
    path.write_text("[1]\n")
    with pytest.raises(UserError, match=r"Line 1 of .*step_000001.jsonl is not a record"):
        shown_rollouts([run], 10**6)


def test_samples_of_an_evaluation(tmp_path):
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75}
    result = {
        "arguments": {"temperature": 0.8, "max_new_tokens": 64},
        "model": {"source": "/home/someone/model"},
        "data": {"name": "starter", "problems": 36},
        "scores": {"n": 2, "overall": {"statistics": {"avg@2": estimate, "length": estimate}}},
        "certainty": {
            "rewards": {
                "length": {
                    "correct_mean": {"value": None, "low": None, "high": None},
                    "incorrect_mean": {"value": 0.5, "low": None, "high": None},
                    "auroc": 0.75,
                    "argmax_accuracy": estimate,
                }
            }
        },
    }
    (tmp_path / "r.json").write_text(json.dumps(result))
    found = read_evaluation(tmp_path / "r.json")
    assert (found.name, found.model, found.data) == ("r", "model", "starter, 36 problems")
    for place in ("/home/someone/runs/mine", "gs://bucket/mine"):
        result["model"]["source"] = f"{place}/checkpoints/40"
        (tmp_path / "r.json").write_text(json.dumps(result))
        assert read_evaluation(tmp_path / "r.json").model == "mine, step 40"
    result["model"]["source"] = "/home/someone/model"
    (tmp_path / "r.json").write_text(json.dumps(result))
    assert found.samples == "2 each at temperature 0.8, at most 64 tokens"
    assert found.scores == {"avg@2": "50.0 (25.0 to 75.0)", "length": "0.50 (0.25 to 0.75)"}
    assert list(found.certainty["length"]) == [
        "-",
        "0.50",
        "0.75",
        "50.0 (25.0 to 75.0)",
    ]
    assert shown_samples(found) == []
    rows = [{"seed": 0, "problems": 36}, *ROWS]
    (tmp_path / "r.samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (step,) = shown_samples(found)
    assert (step.rows, step.of) == (2, 2)
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read as a result"):
        read_evaluation(tmp_path / "r.json")
