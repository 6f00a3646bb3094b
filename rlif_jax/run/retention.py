"""Which checkpoints of a run are kept: the newest, multiples of a step, the best measured."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

MEASURED = "measured"
"""The number of a checkpoint by which the best ones are told; None where it was not measured."""


def quality(metrics: Mapping[str, float]) -> float | None:
    """The metric of a step by which the best checkpoints are kept: avg@K of held-out problems.

    None for a step that was not evaluated.
    """
    names = [name for name in metrics if re.fullmatch(r"eval/.+/avg@\d+", name)]
    return metrics[names[0]] if names else None


def measured(metrics: Any) -> float:
    """What the best checkpoints have most of, least where it was not measured.

    Raises AttributeError, TypeError or ValueError for what are no metrics of a checkpoint.
    """
    value = metrics.get(MEASURED)
    return -math.inf if value is None else float(value)


@dataclass
class NewestBefore(policies.PreservationPolicy):
    """Preserves the newest checkpoint of a step before `step`; None: there is no such step."""

    step: int | None = None

    def should_preserve(
        self,
        checkpoints: Sequence[policies.PolicyCheckpointInfo],
        *,
        context: policies.PreservationContext,
    ) -> Sequence[bool]:
        """Whether each is kept."""
        before = [one.step for one in checkpoints if one.step < (self.step or 0)]
        return [one.step == max(before, default=None) for one in checkpoints]


def policy(
    keep: int, keep_every: int, keep_best: int, healthy: NewestBefore
) -> policies.PreservationPolicy:
    """What Orbax keeps; of checkpoints that are equally good, the later ones count as better."""
    kept: list[Any] = [policies.LatestN(keep), healthy]
    if keep_every:
        kept.append(policies.EveryNSteps(keep_every))
    if keep_best:
        best = policies.BestN(
            get_metric_fn=measured, n=keep_best, keep_checkpoints_without_metrics=False
        )
        kept.append(best)
    return policies.AnyPreservationPolicy(kept)
