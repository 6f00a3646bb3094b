"""What a study came to, from the metrics of its runs."""

from dataclasses import replace

import pytest
from rich.console import Console

from rlif_jax.reporting.study_summary import RunOutcome, shown, summarise


def outcome(
    *accuracy: float, length: float = 40.0, collapsed: int | None = None, key: str = "eval/a/avg@4"
) -> RunOutcome:
    """A run that was evaluated every ten steps."""
    steps = dict(zip(range(0, 99, 10), accuracy, strict=False))
    return RunOutcome(key, steps, length, 0.5, collapsed)


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
    assert found["certain"].verdict == (
        "-5.0 points against random with each of 2 seeds: equal changes allow no claim"
    )


def test_the_control_and_a_seed_of_its_own_are_held_against_their_start(found):
    assert found["random"].beyond is None
    assert found["random"].verdict.startswith("undecided against its start: 0.0")
    assert found["alone"].beyond is None
    assert found["alone"].verdict == "5.0 points against its start; one seed allows no claim"


def test_a_control_on_other_problems_is_none(found):
    other = {seed: replace(run, key="eval/b/avg@4") for seed, run in RUNS["random"].items()}
    tests, _ = summarise({"tests": RUNS["tests"], "random": other}, "random", 0.02)
    assert tests.beyond is None and tests.verdict.endswith("points against its start")


def test_one_seed_of_the_control_is_less_than_several_starts(found):
    runs = {"certain": RUNS["tests"], "random": {0: RUNS["random"][0]}}
    (certain, _) = summarise(runs, "random", 0.02)
    assert certain.beyond is None and certain.verdict.endswith("points against its start")


def test_the_table_has_a_row_for_each(found):
    """certain: 5 and 6 at its end; Student's t for one degree of freedom is 12.7."""
    console = Console(width=100, record=True)
    console.print(shown(list(found.values())))
    head, *rows = (line.split() for line in console.export_text().splitlines())
    assert head == ["method", "seeds", "before", "peak", "final", "tokens", "nats", "told", "at"]
    assert [row[0] for row in rows] == list(RUNS)
    assert rows[2][2:7] == ["11.0", "21.0", "5.5", "±", "6.4"]
    assert rows[2][-4:] == ["8", "0.50", "12,", "-"]
    assert rows[3] == ["alone", "1", "10.0", "15.0", "15.0", "40", "0.50", "-"]


def test_a_long_name_fits_into_80_columns(found):
    name = "tests_passed-from-trajectory_entropy@20"
    (one,) = summarise({name: RUNS["tests"]}, "random", 0.02)
    console = Console(width=80, record=True)
    console.print(shown([one]))
    text = console.export_text()
    assert "tests_passed from" in text and "trajectory_entropy@20" in text and "…" not in text
    assert "31.3 ± 3.8" in text


def test_a_run_is_read_from_its_metrics():
    step = {"rollout/response_length": 30.0, "stats/token_entropy": 0.2}
    records = [
        {"step": 0, "eval/starter/avg@4": 0.25, "eval/starter/avg@4_low": 0.1},
        {"step": 1, **step},
        {"step": 2, **step, "eval/starter/avg@4": 0.5, "eval/starter/pass@4": 0.75},
    ]
    got = RunOutcome.of(records, collapsed=1)
    assert got == RunOutcome("eval/starter/avg@4", {0: 0.25, 2: 0.5}, 30.0, 0.2, collapsed=1)
    assert (got.before, got.peak, got.final) == (0.25, 0.5, 0.5)
    assert RunOutcome.of(records[1:], None) is None
