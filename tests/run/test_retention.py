"""The metric by which the best checkpoints are kept."""

import functools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from orbax.checkpoint.checkpoint_managers import PreservationContext

from rlif_jax.config import Checkpoint, Config, Eval
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.rewards import known_rewards
from rlif_jax.run.retention import (
    Newest,
    NewestBefore,
    is_scheduled,
    measured,
    policy,
    quality,
)


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


def kept(every: int, saved: list[int], keep: int = 2, signs: int | None = None) -> list[int]:
    """What is left once these steps of a run of 9 steps have been saved, one after the other."""
    cfg = Config(steps=9, checkpoint=Checkpoint(every=every))
    scheduled = functools.partial(is_scheduled, cfg)
    healthy = NewestBefore(scheduled, signs)
    rule = policy(Newest(keep, scheduled), keep_every=0, keep_best=0, healthy=healthy)
    left: list[int] = []
    for step in saved:
        found: list[Any] = [SimpleNamespace(step=one) for one in [*left, step]]
        rules = rule.should_preserve(found, context=PreservationContext())
        left = [one.step for one, stays in zip(found, rules, strict=True) if stays]
    return left


@pytest.mark.parametrize(
    ("every", "saved", "left"),
    [
        (2, [2, 4, 6], [4, 6]),
        (2, [2, 4, 5], [2, 4, 5]),  # stopped at 5: two of the plan, and the newest
        (2, [2, 4, 5, 6], [4, 6]),  # as without the interruption
        (2, [2, 3, 4, 5, 6, 8, 9], [8, 9]),
        (0, [3, 5, 9], [9]),  # a run that saves its last step alone
        (0, [3, 5], [5]),
    ],
)
def test_an_interruption_takes_the_place_of_no_checkpoint(every, saved, left):
    assert kept(every, saved) == left


def test_a_return_is_to_a_step_that_every_run_has():
    """Signs from step 8 on: with and without an interruption at step 7 it is checkpoint 6."""
    for saved in ([2, 4, 6, 8], [2, 4, 6, 7, 8]):
        assert kept(2, saved, keep=1, signs=8) == [6, 8]
    healthy = NewestBefore(lambda step: step % 2 == 0)
    assert healthy.of([4, 6, 7, 8], before=8) == 6
    assert healthy.of([7], before=8) == 0
