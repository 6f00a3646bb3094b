"""Curves of tiny run folders: the values that are drawn, not the pixels."""

import json
from pathlib import Path

import pytest

from rlif_jax.errors import UserError
from rlif_jax.reporting.curves import figure, main, read_runs, running_mean


def run_folder(folder: Path, rewards: list[float], **more: dict[int, float]) -> Path:
    """A run with reward/mean in steps from 1 on, and other metrics in the steps that are named."""
    lines = []
    for step, reward in enumerate(rewards, start=1):
        others = {name.replace("__", "/"): at[step] for name, at in more.items() if step in at}
        lines.append(json.dumps({"step": step, "reward/mean": reward, **others}))
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9, "rew']))
    return folder


def lines_of(panel) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines]


def shown(drawn) -> dict:
    """The visible panels by their titles."""
    return {panel.get_title(): panel for panel in drawn.axes if panel.get_visible()}


@pytest.fixture
def runs(tmp_path):
    """Two runs, of which only the first has run tests and only the second has evaluated."""
    first = run_folder(tmp_path / "one", [1.0, 3.0, 8.0], exec__pass_rate={2: 0.5, 3: 0.75})
    second = run_folder(tmp_path / "two", [0.0, 2.0], **{"eval__starter/avg@4": {2: 0.25}})
    return [first, second]


def test_values_and_running_means_are_drawn(runs):
    drawn = figure(read_runs(runs), window=2)
    panels = shown(drawn)
    assert list(panels) == ["reward/mean", "exec/pass_rate"]  # those of the defaults that exist
    assert lines_of(panels["reward/mean"]) == [
        ([1, 2, 3], [1.0, 3.0, 8.0]),
        ([1, 2, 3], [1.0, 2.0, 5.5]),
        ([1, 2], [0.0, 2.0]),
        ([1, 2], [0.0, 1.0]),
    ]
    assert lines_of(panels["exec/pass_rate"]) == [
        ([2, 3], [0.5, 0.75]),
        ([2, 3], [0.5, 0.625]),
    ]
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]
    strong = [line.get_color() for line in panels["reward/mean"].lines[1::2]]
    assert strong == [line.get_color() for line in legend.get_lines()]
    assert len(set(strong)) == 2


def test_an_evaluation_is_shown_as_it_is(runs):
    (panel,) = shown(figure(read_runs(runs), ["eval/starter/avg@4"])).values()
    assert lines_of(panel) == [([2], [0.25])] * 2
    assert panel.lines[1].get_marker() == "o"


def test_empty_panels_are_hidden(tmp_path):
    keys = ["reward/mean", "a/a", "b/b", "c/c"]  # two rows of three
    at = {1: 1.0}
    run = run_folder(tmp_path / "run", [1.0], a__a=at, b__b=at, c__c=at)
    drawn = figure(read_runs([run]), keys)
    assert len(drawn.axes) == 6
    assert list(shown(drawn)) == keys


def test_runs_of_the_same_name_are_named_by_their_paths(tmp_path):
    folders = [run_folder(tmp_path / place / "run", [1.0]) for place in "ab"]
    assert list(read_runs(folders)) == [str(folder) for folder in folders]


def test_running_mean():
    assert running_mean([1.0, 2.0, 6.0, 7.0], 3) == [1.0, 1.5, 3.0, 5.0]
    assert running_mean([4.0, 2.0], 1) == [4.0, 2.0]


def test_the_command_writes_a_file(runs, tmp_path, capsys):
    out = tmp_path / "runs.png"
    main([*map(str, runs), "--out", str(out), "--keys", "reward/mean"])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"wrote {out}: 1 panels, 2 runs\n"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--keys", "reward/none", "--out=x.png"], "No run has reward/none. .*reward/mean"),
        (["--window=0", "--out=x.png"], "--window 0 must be at least 1"),
        (["--out=absent/x.png"], "x.png cannot be written"),
        (["--out=x.nothing"], "x.nothing cannot be written"),
        (["absent", "--out=x.png"], "absent/metrics.jsonl does not exist"),
    ],
)
def test_what_cannot_be_drawn_is_refused(runs, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        main([str(runs[0]), *arguments])
