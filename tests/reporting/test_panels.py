"""What is drawn of runs: the values of lines and bands, and what they say in words."""

import pytest
from support.reported_runs import ACCURACY, arc, write_run

from rlif_jax.reporting.panels import (
    Curve,
    Panel,
    curves,
    further_panels,
    in_words,
    panels_of,
    running_mean,
    study_panels,
)
from rlif_jax.reporting.recorded_runs import methods_of, read_runs


@pytest.fixture
def runs(tmp_path):
    """A method with two seeds, and one with a single run that has run no test."""
    values = {"a-s0": [1.0, 3.0, 8.0], "a-s1": [3.0, 3.0, 6.0], "b-s0": [0.0, 2.0]}
    folders = []
    for seed, (name, rewards) in enumerate(values.items()):
        records = [{"step": n, "reward/mean": r} for n, r in enumerate(rewards, 1)]
        if name != "b-s0":
            records[-1] |= {ACCURACY: 0.25 + seed / 8}
        else:
            records[-1] |= {ACCURACY: 0.5, f"{ACCURACY}_low": 0.25, f"{ACCURACY}_high": 0.75}
        steps = 2 if name == "b-s0" else 3
        folders.append(write_run(tmp_path / name, records, seed=seed % 2, steps=steps))
    return read_runs(folders)


def test_the_line_of_several_runs_is_their_mean_and_the_band_their_range(runs):
    curve, _ = curves(methods_of(runs), Panel("reward/mean", "reward"))
    assert curve == Curve("a", 0, [1, 2, 3], [2.0, 3.0, 7.0], low=[1, 3, 6], high=[3, 3, 8])


def test_the_line_of_a_single_run_is_its_running_mean(runs):
    _, curve = curves(methods_of(runs), Panel("reward/mean", "reward"), window=2)
    assert curve == Curve("b", 1, [1, 2], [0.0, 1.0], faint=[0.0, 2.0])


def test_an_evaluation_is_shown_as_it_is_with_its_interval(runs):
    seeds, single = curves(methods_of(runs), Panel(ACCURACY, "accuracy"))
    assert seeds == Curve("a", 0, [3], [0.3125], low=[0.25], high=[0.375])
    assert single == Curve("b", 1, [2], [0.5], low=[0.25], high=[0.75])


def test_a_method_without_the_metric_has_no_curve(runs, tmp_path):
    more = read_runs([write_run(tmp_path / "c", [{"step": 1, "loss/kl": 2.0}])])
    (curve,) = curves(methods_of([*runs, *more]), Panel("loss/kl", "KL"))
    assert (curve.name, curve.number, curve.values) == ("c", 2, [2.0])


def test_the_study_s_panels_are_those_that_some_run_has(tmp_path):
    (run,) = read_runs([write_run(tmp_path / "one", arc(0.2, 0.1))])
    panels = study_panels([run])
    assert [panel.letter for panel in panels] == ["a", "b", "g"]
    assert panels[0].key == ACCURACY
    assert [panel.key for panel in further_panels([run])] == ["reward/mean", "exec/pass_rate"]
    assert panels_of([run], ["stats/token_entropy", "time/step"]) == [
        panels[2],
        Panel("time/step", "time/step"),
    ]


def test_running_mean():
    assert running_mean([1.0, 2.0, 6.0, 7.0], 3) == [1.0, 1.5, 3.0, 5.0]
    assert running_mean([4.0, 2.0], 1) == [4.0, 2.0]


@pytest.mark.parametrize(
    "values, said",
    [
        ([0.1, 0.3, 0.0], "a: 0.1 at step 0, highest 0.3 at step 5, 0 at step 10"),
        ([0.1, 0.0, 0.2], "a: 0.1 at step 0, lowest 0 at step 5, 0.2 at step 10"),
        ([0.1, 0.2, 0.3], "a: 0.1 at step 0, 0.3 at step 10"),
        ([0.5], "a: 0.5 at step 0"),
    ],
)
def test_a_curve_in_words(values, said):
    assert in_words(Curve("a", 0, [0, 5, 10][: len(values)], values)) == said
