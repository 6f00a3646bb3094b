"""Runs as a report reads them: how far they are, what they are called, which belong together."""

import fcntl
import json

import pytest
from support.reported_runs import ACCURACY, arc, write_run

from rlif_jax.errors import UserError
from rlif_jax.reporting.recorded_runs import RecordedRun, folders_of, methods_of, read_runs


def test_a_run_is_read_without_its_half_written_line(tmp_path):
    run = RecordedRun.read(write_run(tmp_path / "one", arc(0.2, 0.1)))
    assert (run.name, run.last_step, run.state) == ("one", 20, "finished, 20 steps")
    assert run.series(ACCURACY) == ([0, 5, 10, 15, 20], [0.1, 0.2, 0.2, 0.1, 0.1])
    assert run.series("absent") == ([], [])
    assert run.config["sampling.temperature"] == 1.0
    assert run.provenance["platform"] == "cpu"


def test_a_killed_run_and_one_that_goes_on(tmp_path):
    folder = write_run(tmp_path / "one", arc(0.2, 0.1), steps=40)
    lock = (folder / "lock").open("w")
    assert RecordedRun.read(folder).state == "stopped at step 20 of 40"
    fcntl.flock(lock, fcntl.LOCK_EX)
    run = RecordedRun.read(folder)
    assert (run.state, run.going_on) == ("going on at step 20 of 40", True)
    lock.close()
    assert not RecordedRun.read(folder).going_on


def test_a_run_of_another_machine_may_be_going_on(tmp_path):
    """A lock that this machine's kernel does not know, in a folder that both share."""
    folder = write_run(tmp_path / "one", arc(0.2, 0.1), steps=40)
    (folder / "lock").write_text("process 12 on some-other-host\n")
    run = RecordedRun.read(folder)
    assert (run.state, run.going_on, run.ended) == ("at step 20 of 40", True, False)
    ended = RecordedRun.read(write_run(tmp_path / "two", arc(0.2, 0.1)))
    assert (ended.going_on, ended.ended) == (False, True)


def test_the_guard_has_ended_a_run(tmp_path):
    metrics = arc(0.2, 0.1, collapses=True)
    folder = write_run(tmp_path / "one", metrics, steps=40, guard__action="stop")
    assert RecordedRun.read(folder).state == "ended by the guard at step 20 of 40"


def test_a_collapse_is_told_with_the_settings_of_the_run(tmp_path):
    metrics = arc(0.2, 0.1, collapses=True)
    step, reading = RecordedRun.read(write_run(tmp_path / "one", metrics)).collapse
    assert (step, reading.sign, reading.since) == (14, "short", 13)
    patient = RecordedRun.read(write_run(tmp_path / "two", metrics, guard__patience=4))
    assert patient.collapse[0] == 16
    assert RecordedRun.read(write_run(tmp_path / "three", arc(0.2, 0.1))).collapse is None


def test_a_run_without_configuration_is_read(tmp_path):
    folder = write_run(tmp_path / "one", arc(0.2, 0.1))
    (folder / "config.json").unlink()
    run = RecordedRun.read(folder)
    assert (run.state, run.seed, run.config) == ("finished, 20 steps", 0, {})
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json cannot be read .*Remove it"):
        RecordedRun.read(folder)


def test_a_folder_of_runs_stands_for_them(tmp_path):
    runs = [write_run(tmp_path / "study" / name, arc(0.2, 0.1)) for name in ("b", "a")]
    (tmp_path / "study" / "notes").mkdir()
    assert folders_of([tmp_path / "study"]) == sorted(runs)
    assert folders_of([runs[0], tmp_path / "study"]) == runs
    with pytest.raises(UserError, match="notes holds no run"):
        folders_of([tmp_path / "study" / "notes"])
    with pytest.raises(UserError, match="nowhere does not exist"):
        folders_of([tmp_path / "nowhere"])


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path):
    places = ["a/x/run", "b/x/run", "b/y/run", "b/y/other"]
    folders = [write_run(tmp_path / place, arc(0.2, 0.1)) for place in places]
    names = [run.name for run in read_runs(folders)]
    assert names == ["a/x/run", "b/x/run", "y/run", "other"]
    twice = read_runs([folders[0], folders[0]])
    assert len({run.name for run in twice}) == 1


def test_runs_that_differ_by_their_seeds_are_a_method(tmp_path):
    def run(name, **fields):
        return write_run(tmp_path / name, arc(0.2, 0.1), **fields)

    folders = [
        run("kl-s1", seed=1, loss__kl_coef=0.1),
        run("plain-s1", seed=1),
        run("plain-s0", checkpoint__every=1),  # which changes no number
        run("kl-s0", loss__kl_coef=0.1),
        run("again", seed=1),  # the same seed once more is no further one
        run("from-s0", init_from="runs/plain-s0@20"),
        run("from-s1", seed=1, init_from="runs/plain-s1@20"),
    ]
    methods = {m.name: [run.name for run in m.runs] for m in methods_of(read_runs(folders))}
    assert methods == {
        "kl": ["kl-s0", "kl-s1"],
        "plain": ["plain-s0", "plain-s1"],
        "again": ["again"],
        "from": ["from-s0", "from-s1"],
    }


def test_the_series_of_a_method_has_the_steps_that_all_runs_have(tmp_path):
    first = [{"step": n, "reward/mean": float(n)} for n in (1, 2, 3)]
    second = [{"step": n, "reward/mean": 10.0 * n} for n in (2, 3, 4)]
    folders = [
        write_run(tmp_path / "a-s0", first, steps=4),
        write_run(tmp_path / "a-s1", second, seed=1),
    ]
    (method,) = methods_of(read_runs(folders))
    assert method.series("reward/mean") == ([2, 3], [[2.0, 20.0], [3.0, 30.0]])
    assert method.series("absent") == ([], [])


def test_a_damaged_line_is_refused(tmp_path):
    folder = write_run(tmp_path / "one", arc(0.2, 0.1))
    (folder / "metrics.jsonl").write_text("no\n" + json.dumps({"step": 1}) + "\n")
    with pytest.raises(UserError, match="Line 1 of"):
        RecordedRun.read(folder)
