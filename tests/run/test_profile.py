"""A run's trace is read back with JAX's own reader: its steps and phases are in it, by name."""

import contextlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support import ROOT
from support.tiny import write_problems

from rlif_jax.run.clock import PHASES, Clock
from rlif_jax.run.profile import StepTrace
from rlif_jax.train import main

# JAX's profiler asks every loaded plugin for its events. libtpu, with which other tests compile
# ahead of time, crashes at that where no TPU is.
traces = pytest.mark.own_process


def traced_events(folder: Path) -> list[tuple[str, dict]]:
    """Name and arguments of every host event in the one trace of a folder."""
    (path,) = folder.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    return [
        (event.name, dict(event.stats))
        for plane in planes
        for line in plane.lines
        for event in line.events
    ]


def step_numbers(folder: Path) -> list[int]:
    return [stats["step_num"] for name, stats in traced_events(folder) if name == "train"]


def run(folder: Path, traced: range, steps: range, notes: list[str], stop_in: int = 0) -> None:
    """A run of `steps` that computes a little in each of them."""
    clock = Clock()
    with StepTrace(folder, traced, notes.append) as trace:
        for step in trace.steps(steps):
            with clock("sample"):
                jnp.arange(step).sum().block_until_ready()
            if step == stop_in:
                raise KeyboardInterrupt


@traces
def test_the_named_steps_are_traced_with_their_phases(tmp_path):
    notes = []
    run(tmp_path, range(2, 4), range(1, 6), notes)
    assert step_numbers(tmp_path) == [2, 3]
    assert [name for name, _ in traced_events(tmp_path)].count("sample") == 2
    (note,) = notes
    assert str(tmp_path) in note
    assert list(tmp_path.rglob("*.trace.json.gz"))  # which the note names


def test_without_steps_nothing_is_traced(tmp_path):
    notes = []
    run(tmp_path / "profile", range(0), range(1, 3), notes)
    assert (notes, list(tmp_path.iterdir())) == ([], [])


@traces
def test_a_resumed_run_traces_the_steps_that_are_left(tmp_path):
    notes = []
    run(tmp_path, range(2, 6), range(4, 8), notes)
    assert step_numbers(tmp_path) == [4, 5]
    assert "step 2" in notes[0]


def test_a_run_resumed_after_its_traced_steps_says_so(tmp_path):
    notes = []
    run(tmp_path / "profile", range(2, 4), range(4, 6), notes)
    assert "step 2" in notes[0]
    assert list(tmp_path.iterdir()) == []


@traces
@pytest.mark.parametrize("stop_in", [2, 3])
def test_a_stopped_run_leaves_the_trace_of_what_it_did(tmp_path, stop_in):
    notes = []
    with contextlib.suppress(KeyboardInterrupt):
        run(tmp_path, range(2, 5), range(1, 6), notes, stop_in)
    assert step_numbers(tmp_path) == list(range(2, stop_in + 1))
    run(tmp_path / "next", range(1, 2), range(1, 2), notes)  # JAX traces once at a time
    assert step_numbers(tmp_path / "next") == [1]


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "profile").write_text("a file where the folder should be")
    notes = []
    run(tmp_path / "profile", range(1, 2), range(1, 3), notes)
    assert "cannot be written" in notes[0]
    assert len(notes) == 1


@pytest.fixture
def arguments(tiny_path, tmp_path):
    """A run of the very small model, in `tmp_path`/run."""
    return [
        f"--config={ROOT / 'configs' / 'prob_disparity.py'}",
        f"--model.source={tiny_path}",
        f"--data.name={write_problems(tmp_path / 'adding.jsonl')}",
        f"--run-dir={tmp_path / 'run'}",
        "--data.prompts-per-step=4",
        "--sampling.samples-per-prompt=4",
        "--sampling.max-new-tokens=12",
        "--eval.every=0",
    ]


@traces
@pytest.mark.slow
def test_a_training_run_is_traced_and_a_resumed_one_too(arguments, tmp_path, capsys):
    folder = tmp_path / "run" / "profile"
    main([*arguments, "--steps=1"])
    assert not folder.exists()
    main([*arguments, "--steps=3", "--profile.steps=3:3"])
    assert str(folder) in capsys.readouterr().out
    assert step_numbers(folder) == [3]
    names = {name for name, _ in traced_events(folder)}
    assert names >= set(PHASES) - {"other"}
    (path,) = folder.rglob("*.xplane.pb")
    parts = ("embedding", "attention", "mlp", "head", "token_stats", "loss", "optimizer")
    stages = path.read_bytes()  # the optimised programs are in it, with the names of their parts
    assert [part for part in parts if f"{part}/".encode() not in stages] == []
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
