"""The figure of runs, as for a paper, and their numbers: the values drawn, not the pixels."""

import pytest
from support.reported_runs import ACCURACY, arc, write_run

from rlif_jax.errors import UserError
from rlif_jax.reporting.figure import as_csv, figure, in_format
from rlif_jax.reporting.recorded_runs import read_runs


def lines_of(panel) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines]


def shown(drawn) -> dict:
    """The visible panels by their titles."""
    return {panel.get_title(): panel for panel in drawn.axes if panel.get_visible()}


@pytest.fixture
def runs(tmp_path):
    first = [{"step": n, "reward/mean": r} for n, r in enumerate([1.0, 3.0, 8.0], 1)]
    second = [{"step": n, "reward/mean": r} for n, r in enumerate([0.0, 2.0], 1)]
    second[1][ACCURACY] = 0.25
    folders = [write_run(tmp_path / "one", first), write_run(tmp_path / "two", second)]
    return read_runs(folders)


def test_values_and_running_means_are_drawn(runs):
    drawn = figure(runs, ["reward/mean"], window=2)
    (panel,) = shown(drawn).values()
    assert lines_of(panel) == [
        ([1, 2, 3], [1.0, 3.0, 8.0]),
        ([1, 2, 3], [1.0, 2.0, 5.5]),
        ([1, 2], [0.0, 2.0]),
        ([1, 2], [0.0, 1.0]),
    ]
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
    strong = [line.get_color() for line in panel.lines[1::2]]
    assert strong == [line.get_color() for line in legend.get_lines()]
    assert len(set(strong)) == 2


def test_an_evaluation_has_points(runs):
    ((title, panel),) = shown(figure(runs)).items()
    assert title == "(a) starter/avg@4, held out"
    assert lines_of(panel) == [([2], [0.25])]
    assert panel.lines[0].get_marker() == "o"


def test_the_study_s_panels_with_their_units_and_no_empty_one(tmp_path):
    drawn = figure(read_runs([write_run(tmp_path / "run", arc(0.3, 0.1))]))
    assert list(shown(drawn)) == [
        "(a) starter/avg@4, held out",
        "(b) response length [tokens]",
        "(g) token entropy [nats]",
    ]


def test_it_is_a_file_of_the_kind_asked_for(runs):
    drawn = figure(runs, ["reward/mean"])
    for kind, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        assert in_format(drawn, kind).startswith(magic)


def test_metrics_that_no_run_has_are_refused(runs, tmp_path):
    with pytest.raises(UserError, match=r"--keys reward/none: no run has it\. .*reward/mean"):
        figure(runs, ["reward/none"])
    bare = read_runs([write_run(tmp_path / "bare", [{"step": 1, "grad/norm": 1.0}])])
    with pytest.raises(UserError, match=r"no run has a metric of the ten .*, of: grad/norm"):
        figure(bare)


def test_numbers_as_csv(runs):
    assert as_csv(runs).splitlines() == [
        "run,seed,step,metric,value",
        "one,0,1,reward/mean,1.0",
        "one,0,2,reward/mean,3.0",
        "one,0,3,reward/mean,8.0",
        "two,0,1,reward/mean,0.0",
        "two,0,2,reward/mean,2.0",
        "two,0,2,eval/starter/avg@4,0.25",
    ]
