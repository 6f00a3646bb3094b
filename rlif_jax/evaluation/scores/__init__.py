"""Scores of an evaluation, with intervals over problems, and the difference of two evaluations."""

from rlif_jax.evaluation.scores.bootstrap import RESAMPLES, Estimate
from rlif_jax.evaluation.scores.paired import Comparison, compare
from rlif_jax.evaluation.scores.per_sample import PerSample
from rlif_jax.evaluation.scores.summary import (
    Scores,
    default_ks,
    eval_metrics,
    pass_at_k,
    summarise,
)

__all__ = [
    "RESAMPLES",
    "Comparison",
    "Estimate",
    "PerSample",
    "Scores",
    "compare",
    "default_ks",
    "eval_metrics",
    "pass_at_k",
    "summarise",
]
