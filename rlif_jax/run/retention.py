"""Which checkpoints of a run are kept: the newest, multiples of a step, the best measured."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

from rlif_jax.config import Config

MEASURED = "measured"
"""The number of a checkpoint by which the best ones are told; None where it was not measured."""


def quality(metrics: Mapping[str, float]) -> float | None:
    """The number of a step by which the best checkpoints are kept: avg@K of held-out problems.

    None for a step that was not evaluated.
    """
    name = quality_key(metrics)
    return None if name is None else metrics[name]


def quality_key(metrics: Mapping[str, float]) -> str | None:
    """Which metric of a step that is."""
    return next((name for name in metrics if re.fullmatch(r"eval/.+/avg@\d+", name)), None)


def measured(metrics: Any) -> float:
    """What the best checkpoints have most of, least where it was not measured.

    Raises AttributeError, TypeError or ValueError for what are no metrics of a checkpoint.
    """
    value = metrics.get(MEASURED)
    return -math.inf if value is None else float(value)


def is_scheduled(cfg: Config, step: int) -> bool:
    """Whether a run saves a step by its configuration, not because it is stopped there."""
    every = cfg.checkpoint.every
    return step == cfg.steps or bool(every and step % every == 0)


@dataclass(frozen=True)
class Newest(policies.PreservationPolicy):
    """Preserves the newest checkpoint, and the `keep` newest ones of scheduled steps.

    What an interruption has saved thus takes the place of none that an uninterrupted run keeps.
    """

    keep: int
    scheduled: Callable[[int], bool]

    def should_preserve(
        self,
        checkpoints: Sequence[policies.PolicyCheckpointInfo],
        *,
        context: policies.PreservationContext,
    ) -> Sequence[bool]:
        """Whether each is kept."""
        steps = sorted(one.step for one in checkpoints)
        kept = {*steps[-1:], *[step for step in steps if self.scheduled(step)][-self.keep :]}
        return [one.step in kept for one in checkpoints]


@dataclass
class NewestBefore(policies.PreservationPolicy):
    """Preserves the newest scheduled checkpoint from before `step`; None: of no step."""

    scheduled: Callable[[int], bool]
    step: int | None = None

    def should_preserve(
        self,
        checkpoints: Sequence[policies.PolicyCheckpointInfo],
        *,
        context: policies.PreservationContext,
    ) -> Sequence[bool]:
        """Whether each is kept."""
        healthy = self.of([one.step for one in checkpoints], self.step or 0)
        return [one.step == healthy for one in checkpoints]

    def of(self, steps: Iterable[int], before: int) -> int:
        """The newest of these steps that is scheduled and lies before another, 0 for none."""
        return max((step for step in steps if step < before and self.scheduled(step)), default=0)


def policy(
    newest: Newest, keep_every: int, keep_best: int, healthy: NewestBefore
) -> policies.PreservationPolicy:
    """What Orbax keeps; of checkpoints that are equally good, the later ones count as better."""
    kept: list[Any] = [newest, healthy]
    if keep_every:
        kept.append(policies.EveryNSteps(keep_every))
    if keep_best:
        best = policies.BestN(
            get_metric_fn=measured, n=keep_best, keep_checkpoints_without_metrics=False
        )
        kept.append(best)
    return policies.AnyPreservationPolicy(kept)
