"""What a study came to, from the metrics of its runs."""

import json

import pytest
from rich.console import Console

from rlif_jax.reporting.study_summary import RunOutcome, shown, summarise


def outcome(*accuracy: float, length: float = 40.0, collapsed: int | None = None) -> RunOutcome:
    """A run that was evaluated every ten steps."""
    return RunOutcome(dict(zip(range(0, 99, 10), accuracy, strict=False)), length, 0.5, collapsed)


RUNS = {
    "random": {0: outcome(0.10, 0.10), 1: outcome(0.12, 0.11), 2: outcome(0.11, 0.12)},
    "tests": {0: outcome(0.10, 0.30), 1: outcome(0.12, 0.31), 2: outcome(0.11, 0.33)},
    "certain": {
        1: outcome(0.12, 0.22, 0.06, length=7.0),
        0: outcome(0.10, 0.20, 0.05, length=9.0, collapsed=12),
    },
    "alone": {7: outcome(0.10, 0.15)},
}


@pytest.fixture(scope="module")
def found():
    return {one.name: one for one in summarise(RUNS, "random", 0.02)}


def test_accuracies_over_seeds(found):
    certain = found["certain"]
    assert (certain.before.value, certain.before.n) == (pytest.approx(0.11), 2)
    assert certain.peak.value == pytest.approx(0.21)
    assert certain.final.value == pytest.approx(0.055)
    assert certain.gain.difference.value == pytest.approx(-0.055)
    assert certain.drop.difference.value == pytest.approx(-0.155)
    assert certain.length.value == 8.0
    assert certain.collapsed == (12, None)


def test_methods_are_held_against_the_control_with_their_seed(found):
    """tests: 0.20, 0.20, 0.21 beyond the control."""
    beyond = found["tests"].beyond.difference
    assert (beyond.value, beyond.n) == (pytest.approx(0.61 / 3), 3)
    assert found["tests"].verdict.startswith("gains 20.3 (18.9 to 21.8) points against random")
    assert found["certain"].beyond.difference.n == 2
    assert found["certain"].verdict == "loses 5.0 (5.0 to 5.0) points against random"


def test_the_control_and_a_seed_of_its_own_are_held_against_their_start(found):
    assert found["random"].beyond is None
    assert found["random"].verdict.startswith("undecided against its start: 0.0")
    assert found["alone"].beyond is None
    assert found["alone"].verdict == "5.0 points against its start; one seed allows no claim"


def test_one_seed_of_the_control_is_less_than_several_starts(found):
    runs = {"certain": RUNS["tests"], "random": {0: RUNS["random"][0]}}
    (certain, _) = summarise(runs, "random", 0.02)
    assert certain.beyond is None and certain.verdict.endswith("points against its start")


def test_the_table_has_a_row_for_each(found):
    console = Console(width=100, record=True)
    console.print(shown(list(found.values())))
    table, said = (part.splitlines() for part in console.export_text().split("\n\n"))
    head, *lines = table
    assert head.split()[:3] == ["method", "seeds", "before"]
    assert [line.split()[0] for line in lines if line[0] != " "] == list(RUNS)
    assert [line.split(":")[0] for line in said] == list(RUNS)
    assert "tests: gains 20.3 (18.9 to 21.8) points against random" in said


def test_a_run_is_read_from_its_metrics(tmp_path):
    step = {"rollout/response_length": 30.0, "stats/token_entropy": 0.2}
    records = [
        {"step": 0, "eval/starter/avg@4": 0.25, "eval/starter/avg@4_low": 0.1},
        {"step": 1, **step, "collapse/state": 2.0},
        {
            "step": 2,
            **step,
            "collapse/state": 2.0,
            "eval/starter/avg@4": 0.5,
            "eval/starter/pass@4": 0.75,
        },
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    got = RunOutcome.read(tmp_path)
    assert got == RunOutcome({0: 0.25, 2: 0.5}, 30.0, 0.2, collapsed=1)
    assert (got.before, got.peak, got.final) == (0.25, 0.5, 0.5)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(records[1]) + "\n")
    assert RunOutcome.read(tmp_path) is None
