"""The recorded study on a laptop: its runs are those of its suite, its table is what they say."""

from pathlib import Path

import pytest

from benchmarks.guard import judged
from benchmarks.study_rows import rows
from rlif_jax.config.suite import read_suite_file
from rlif_jax.reporting.recorded_runs import RecordedRun
from rlif_jax.study import main, planned

ROOT = Path(__file__).parents[1]
FOLDER, SUITE = ROOT / "benchmarks/laptop_study", ROOT / "configs/study/laptop.py"


def test_the_recorded_runs_count_as_finished(monkeypatch):
    """A configuration that no longer is that of its run would be refused."""
    monkeypatch.chdir(ROOT)  # a run that starts from another has its path as it was given
    runs = planned(read_suite_file(SUITE), "benchmarks/laptop_study", [])
    finished = {one.run.name for one in runs if one.standing.finished}
    assert finished == {path.parent.name for path in FOLDER.glob("*/metrics.jsonl")}


def test_the_table_is_what_the_runs_say():
    table = [line for line in (FOLDER / "README.md").read_text().splitlines() if line[:1] == "|"]
    assert table == list(rows(FOLDER))


def test_the_summary_of_several_seeds(capsys):
    main(["--suite", str(SUITE), "--out", str(FOLDER), "--summary", "--only", "self_certainty-*"])
    printed = capsys.readouterr().out
    assert "3     15.3   20.4 0.7 ± 3.0 16     0.03 9, 9, 8" in printed
    assert "self_certainty: loses 14.6 (8.4 to 20.8) points against its start" in printed


def test_what_was_told_by_chance_is_told_no_more():
    """The guard has told a collapse of this run, of entropies below 0.05 nats, and does not now."""
    run = RecordedRun.read(FOLDER / "tests_passed-from-trajectory_entropy@20-s0")
    assert 27 in [record["step"] for record in run.records if record.get("collapse/state") == 2]
    assert run.outcome is not None and run.outcome.collapsed is None


@pytest.mark.parametrize("action", ["rollback", "switch", "stop"])
def test_a_run_that_the_guard_changes_is_no_false_alarm(action):
    run = RecordedRun.read(FOLDER / "self_certainty-s0")
    assert judged(run).outcome == "in time"
    changed = RecordedRun(
        run.name, run.folder, {**run.config, "guard.action": action}, run.provenance, run.records
    )
    assert judged(changed).outcome == "acted"
