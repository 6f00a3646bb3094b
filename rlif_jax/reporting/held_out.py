"""Held-out scores as the metrics of a step have them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Held-out accuracy of a step on a data set, with its 95% interval.

    `metric` is avg@K; `others` are pass@K by their names; `length` is in tokens. What a step's
    metrics lack is None, or not among the others.
    """

    step: int
    dataset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    others: Mapping[str, float]
    length: float | None


def scores_of(metrics: Mapping[str, float]) -> list[Score]:
    """The held-out scores among the metrics of a step, one for each data set."""
    scores = []
    for key, value in metrics.items():
        if not (found := re.fullmatch(r"eval/(.+)/(avg@\d+)", key)):
            continue
        dataset, metric = found.groups()
        others = {
            name.rpartition("/")[2]: other
            for name, other in metrics.items()
            if re.fullmatch(re.escape(f"eval/{dataset}/pass@") + r"\d+", name)
        }
        low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
        length = metrics.get(f"eval/{dataset}/response_length")
        scores.append(
            Score(int(metrics["step"]), dataset, metric, value, low, high, others, length)
        )
    return scores
