"""What a checkpoint keeps of a step that lacks only its evaluation."""

from dataclasses import replace

import pytest

from rlif_jax.config import Config
from rlif_jax.errors import UserError
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.log import RunLog
from rlif_jax.run.resume import ResumePoint, joined, resume_point

POSITION = {"problems": "digest", "state": {"next_index": 3}}


def test_unrecorded_metrics_travel_beside_the_place_in_the_data():
    kept = joined(POSITION, {"reward/mean": 0.5})
    assert ResumePoint(3, recorded=False).split(kept) == (POSITION, {"reward/mean": 0.5})
    assert kept.keys() == {*POSITION, "unrecorded"}  # as older checkpoints have it


def test_metrics_that_were_recorded_since_are_not_recorded_again():
    kept = joined(POSITION, {"reward/mean": 0.5})
    assert ResumePoint(3, recorded=True).split(kept) == (POSITION, {})
    assert ResumePoint(3, recorded=False).split(POSITION) == (POSITION, {})


def recorded(folder, *steps: int) -> Config:
    """A run of 4 steps whose metrics are there."""
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in steps))
    return Config(run_dir=str(folder), steps=4)


@pytest.mark.parametrize("steps", [3, 4, 9])
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_without_its_checkpoints_is_not_overwritten(tmp_path, steps, resume):
    """As it is passed on: finished or not, its records are all that is left of it."""
    cfg = replace(recorded(tmp_path / "run", 0, 1, 2, 3, 4), steps=steps, resume=resume)
    with pytest.raises(UserError, match=r"records of 4 steps without checkpoints/.*overwrite them"):
        resume_point(cfg, Checkpoints(tmp_path / "run" / "checkpoints", keep=1))


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path):
    cfg = recorded(tmp_path / "run", 0, 1, 2)
    (tmp_path / "run" / "checkpoints").mkdir()
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", keep=1)
    assert resume_point(cfg, checkpoints) == ResumePoint(0, recorded=True)
    with RunLog(tmp_path / "new", Config()):
        pass  # a run makes it when it begins
    assert (tmp_path / "new" / "checkpoints").is_dir()


def test_a_run_that_was_evaluated_alone_has_nothing_to_lose(tmp_path):
    cfg = recorded(tmp_path / "run", 0)
    assert resume_point(cfg, Checkpoints(tmp_path / "run" / "checkpoints", keep=1)).step == 0
