"""What a checkpoint keeps of a step that lacks only its evaluation."""

from rlif_jax.run.resume import ResumePoint, joined

POSITION = {"problems": "digest", "state": {"next_index": 3}}


def test_unrecorded_metrics_travel_beside_the_place_in_the_data():
    kept = joined(POSITION, {"reward/mean": 0.5})
    assert ResumePoint(3, recorded=False).split(kept) == (POSITION, {"reward/mean": 0.5})
    assert kept.keys() == {*POSITION, "unrecorded"}  # as older checkpoints have it


def test_metrics_that_were_recorded_since_are_not_recorded_again():
    kept = joined(POSITION, {"reward/mean": 0.5})
    assert ResumePoint(3, recorded=True).split(kept) == (POSITION, {})
    assert ResumePoint(3, recorded=False).split(POSITION) == (POSITION, {})
