"""The metric by which the best checkpoints are kept."""

import math

import pytest

from rlif_jax.config import Checkpoint, Config, Eval
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.rewards import known_rewards
from rlif_jax.run.retention import measured, quality


def test_the_quality_of_a_step_is_its_average_over_held_out_problems():
    metrics = {"eval/starter/avg@4_low": 0.1, "eval/starter/avg@4": 0.3, "eval/starter/pass@4": 0.6}
    assert quality(metrics) == 0.3
    assert quality({"reward/mean": 1.0, "eval/starter/pass@4": 0.6}) is None


def test_a_step_that_was_not_evaluated_is_worse_than_any():
    assert measured({"measured": None}) == measured({}) == -math.inf < measured({"measured": 0})
    for damaged in ([0.5], "0.5", {"measured": "half"}, {"measured": [1]}):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            measured(damaged)


def test_the_best_cannot_be_kept_without_evaluations():
    cfg = Config(checkpoint=Checkpoint(keep_best=2), eval=Eval(every=0))
    with pytest.raises(UserError, match=r"checkpoint.keep_best=2 needs evaluations"):
        validate(cfg, known_rewards())
    validate(Config(checkpoint=Checkpoint(keep_best=2)), known_rewards())
