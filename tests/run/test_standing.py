"""How far a run is, from what is in its folder."""

import json

import pytest

from rlif_jax.config import Config
from rlif_jax.run.standing import Standing, seconds_of_steps, standing


def folder_of(path, seconds, checkpoint=None) -> Config:
    path.mkdir()
    lines = [{"step": 0, "eval/a": 0.5}]
    lines += [{"step": i, "time/step": s} for i, s in enumerate(seconds, 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if checkpoint is not None:
        (path / "checkpoints" / str(checkpoint)).mkdir(parents=True)
    return Config(steps=3, run_dir=str(path))


@pytest.mark.parametrize(
    ("seconds", "checkpoint", "expected"),
    [
        ([], None, Standing(0, 3, False)),
        ([1, 1], 2, Standing(2, 3, False)),
        ([1, 1, 1], 3, Standing(3, 3, True)),
        ([1, 1, 1], 2, Standing(3, 3, False)),  # recorded, and not saved yet
        ([1, 1, 1], None, Standing(3, 3, True)),  # passed on without checkpoints
    ],
)
def test_a_run_is_finished_once_its_last_step_is_saved(tmp_path, seconds, checkpoint, expected):
    got = standing(folder_of(tmp_path / "run", seconds, checkpoint))
    assert got == expected
    assert got.steps_left == (0 if got.finished else max(3 - got.done, 1))


def test_a_run_that_has_not_begun(tmp_path):
    cfg = Config(steps=3, run_dir=str(tmp_path / "none"))
    assert standing(cfg) == Standing(0, 3, False) and f"{standing(cfg)}" == "not begun"


def test_steps_are_timed_without_the_first_of_each_run(tmp_path):
    some = [folder_of(tmp_path / "a", [60, 10, 20]), folder_of(tmp_path / "b", [90, 30])]
    assert seconds_of_steps(some) == 20
    assert seconds_of_steps([folder_of(tmp_path / "c", [60])]) is None
