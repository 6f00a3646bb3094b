"""A run folder in a bucket: what is recorded there, dropped at a resume, and refused."""

import json

import numpy as np
import pytest
from support.run_folders import write_steps

from rlif_jax.config import Config
from rlif_jax.errors import UserError
from rlif_jax.reporting.recorded_runs import RecordedRun
from rlif_jax.run.failures import Diverged, SkippedBatches
from rlif_jax.run.folder import check_shared, locked
from rlif_jax.run.log import RunLog, last_step, truncate_after
from rlif_jax.run.profile import StepTrace
from rlif_jax.run.provenance import check_same_config, recorded_config
from rlif_jax.run.recorded import recorded_steps
from rlif_jax.storage.folder import folder_at
from rlif_jax.weights.source import open_model

RUN = "gs://runs/some/run"


def test_it_holds_what_a_local_one_does(bucket, tmp_path):
    for folder in (folder_at(RUN), tmp_path / "run"):
        write_steps(folder, 1, 2)
        with RunLog(folder, Config(), resume_step=2) as log:
            log.metrics(3, {"reward/mean": 0.5})
            log.rollouts(3, [{"problem": "é", "reward": 0.0}])
            log.provenance(3, {"key": [1, 2]})
    written = {name: data for name, data in bucket.files.items() if "tfevents" not in name}
    paths = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and "tfevents" not in p.name]
    assert written == {
        f"some/{path.relative_to(tmp_path).as_posix()}": path.read_bytes() for path in paths
    }
    sizes = [len(data) for name, data in sorted(bucket.files.items()) if "tfevents" in name]
    events = sorted((tmp_path / "run/tensorboard").iterdir())
    assert sizes == [path.stat().st_size for path in events]
    assert RecordedRun.read(folder_at(RUN)).records == RecordedRun.read(tmp_path / "run").records
    (step,) = recorded_steps(folder_at(RUN), 1, 3).values()
    assert step.provenance == {"step": 3, "key": [1, 2]}
    assert step.rows == [{"problem": "é", "reward": 0.0}]


@pytest.mark.parametrize(("kept", "left"), [(2, [1, 2]), (-1, []), (9, [1, 2, 3])])
def test_what_a_checkpoint_does_not_cover_is_dropped(bucket, kept, left):
    folder = folder_at(RUN)
    write_steps(folder, 1, 2, 3)
    truncate_after(folder, kept)
    rows = [json.loads(line) for line in bucket.files["some/run/metrics.jsonl"].splitlines()]
    assert [row["step"] for row in rows] == left
    assert last_step(folder) == max(left, default=-1)
    rollouts = [name for name in bucket.files if "/rollouts/" in name]
    assert sorted(rollouts) == [f"some/run/rollouts/step_{step:06d}.jsonl" for step in left]


def test_another_configuration_is_refused_in_a_used_folder_only(bucket):
    folder = folder_at(RUN)
    check_same_config(folder, Config(seed=1))
    with RunLog(folder, Config(seed=1)) as log:
        check_same_config(folder, Config(seed=2))  # nothing is recorded yet
        log.metrics(1, {"reward/mean": 0.0})
    check_same_config(folder, Config(seed=1))
    assert recorded_config(folder).seed == 1
    with pytest.raises(UserError, match=rf"{RUN} holds a run .*seed was 1 and is now 2"):
        check_same_config(folder, Config(seed=2))


def test_the_earlier_of_two_runs_stops_at_its_next_record(bucket):
    folder = folder_at(RUN)
    with locked(folder), RunLog(folder, Config()) as earlier:
        check_shared(folder)
        earlier.metrics(1, {"reward/mean": 0.1})
        with locked(folder), RunLog(folder, Config()) as later:
            later.metrics(1, {"reward/mean": 0.2})
            with pytest.raises(UserError, match=f"{RUN}/metrics.jsonl is not as this process"):
                earlier.metrics(2, {"reward/mean": 0.1})
            later.metrics(2, {"reward/mean": 0.2})
    rows = [json.loads(line) for line in bucket.files["some/run/metrics.jsonl"].splitlines()]
    assert rows == [{"step": step, "reward/mean": 0.2} for step in (1, 2)]


def test_a_write_that_is_refused_is_one_sentence_and_nothing_is_lost(bucket):
    folder = folder_at(RUN)
    with RunLog(folder, Config()) as log:
        log.metrics(1, {"reward/mean": 0.1})
        before, bucket.status = bucket.files.copy(), 403
        for name, write in {
            "metrics.jsonl": lambda: log.metrics(2, {"reward/mean": 0.1}),
            "provenance.jsonl": lambda: log.provenance(2, {}),
            "rollouts/step_000002.jsonl": lambda: log.rollouts(2, [{"reward": 1.0}]),
        }.items():
            said = rf"^{RUN}/{name} could not be written: the bucket refuses access .*role.*intact"
            with pytest.raises(UserError, match=said):
                write()
    assert bucket.files == before


def test_a_bucket_that_is_not_there_is_named(bucket):
    folder = folder_at("gs://absent/run")
    with pytest.raises(UserError, match=r"there is no bucket gs://absent .*buckets create gs://ab"):
        RunLog(folder, Config()).__enter__()


def test_a_batch_that_is_left_out_is_kept(bucket):
    notes = []
    skipped = SkippedBatches(folder_at(RUN), 0, notes.append)
    arrays = {"tokens": np.arange(6).reshape(2, 3), "reward": np.float32([np.nan, 1])}
    with pytest.raises(Diverged):
        skipped.skip(7, "the loss is not a number", arrays)
    path = folder_at(RUN) / "failures/step_000007_1.npz"
    assert notes == [
        f"step 7 leaves out a batch: the loss is not a number. It is kept in {path}",
    ]
    with path.open("rb") as file, np.load(file) as kept:
        assert kept.files == ["tokens", "reward"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(kept[name], array)


def test_the_model_is_described_whole_or_again(bucket, tiny_path, tmp_path):
    opened = open_model(str(tiny_path))
    opened.describe_run(folder_at(RUN))
    (tmp_path / "run").mkdir()
    opened.describe_run(tmp_path / "run")
    described = {path.name: path.read_bytes() for path in (tmp_path / "run/model").iterdir()}
    assert bucket.files == {f"some/run/model/{name}": data for name, data in described.items()}
    assert bucket.writes[-1] == "some/run/model/config.json"  # which says that all is there
    opened.describe_run(folder_at(RUN))
    assert len(bucket.writes) == len(described)
    del bucket.files["some/run/model/config.json"]  # as a run that was killed leaves it
    opened.describe_run(folder_at(RUN))
    assert len(bucket.files) == len(described)


def test_a_run_without_a_checkpoint_is_known_as_one(bucket, tiny_path):
    open_model(str(tiny_path)).describe_run(folder_at(RUN))
    with pytest.raises(UserError, match=rf"run folder {RUN} has no checkpoint yet"):
        open_model(RUN)
    # Of a checkpoint that was being written:
    bucket.files["some/run/checkpoints/2/params/manifest.ocdbt"] = b"x"
    with pytest.raises(UserError, match=rf"run folder {RUN} has no checkpoint yet"):
        open_model(RUN)


@pytest.mark.own_process  # see tests/run/test_profile.py
def test_a_trace_is_kept_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path))
    notes = []
    with StepTrace(folder_at(RUN) / "profile", range(1, 2), notes.append) as trace:
        assert list(trace.steps(range(1, 3))) == [1, 2]
    folder = tmp_path / "traces/runs/some/run/profile"
    assert len(list(folder.rglob("*.xplane.pb"))) == 1
    assert f"the trace of profile.steps is in {folder}. Open it" in notes[0]
