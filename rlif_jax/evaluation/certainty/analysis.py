"""Certainty against correctness, for each intrinsic reward."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlif_jax.errors import UserError
from rlif_jax.evaluation.certainty.calibration import (
    CONFIDENCE,
    Bin,
    calibration_error,
    confidence_bins,
    quantile_bins,
)
from rlif_jax.evaluation.certainty.separation import (
    auroc_pooled,
    auroc_within,
    class_mean,
    pair_wins,
    rank_biserial,
)
from rlif_jax.evaluation.scores.bootstrap import RESAMPLES, Estimate, mean_estimates
from rlif_jax.evaluation.scores.table import aligned

_HISTOGRAM_BINS = 30
_OUTLIERS = 0.005  # share of samples at each end that fall into the outermost bins


@dataclass(frozen=True)
class Histogram:
    """Numbers of correct and of incorrect samples between `edges`, one more than bins.

    The edges hold 99% of the samples; those outside are counted in the first and in the last bin.
    """

    edges: tuple[float, ...]
    correct: tuple[int, ...]
    incorrect: tuple[int, ...]


@dataclass(frozen=True)
class RewardAnalysis:
    """One reward against correctness. None where a class that it needs has no sample.

    Means are over the samples of a class, in the reward's unit (nats, or a probability). `auroc`
    and `rank_biserial` are over all samples, `..._within` the mean over problems with both classes.
    `argmax_accuracy` is the share of problems whose sample of the largest reward is correct, ties
    drawn at random; `argmax_gain` is that less avg@n. `reliability` are tenths of the samples by
    reward; `calibration` tenths of confidence and `calibration_error` their ECE, for the rewards
    of `CONFIDENCE`.
    """

    correct_mean: Estimate | None
    incorrect_mean: Estimate | None
    rank_biserial: Estimate | None
    auroc: Estimate | None
    rank_biserial_within: Estimate | None
    auroc_within: Estimate | None
    argmax_accuracy: Estimate
    argmax_gain: Estimate
    reliability: tuple[Bin, ...]
    calibration: tuple[Bin, ...] | None
    calibration_error: float | None
    histogram: Histogram


@dataclass(frozen=True)
class Analysis:
    """All rewards on `problems` problems with `n` samples each; `dataclasses.asdict` gives JSON.

    `mixed_problems` have correct and incorrect samples. `random` is avg@n, the accuracy of a sample
    drawn at random; `oracle` is pass@n, that of the best one.
    """

    problems: int
    n: int
    mixed_problems: int
    random: Estimate
    oracle: Estimate
    rewards: dict[str, RewardAnalysis]

    def lines(self) -> list[str]:
        """A table: a row for each reward, 95% intervals in brackets."""
        title = ["", "correct", "incorrect", "rank-biserial r", "AUROC", "AUROC in problem"]
        rows = [[*title, "ECE", f"argmax of {self.n}"]]
        text = lambda estimate: "-" if estimate is None else estimate.text(3)
        mean = lambda estimate: "-" if estimate is None else f"{estimate.value:.3f}"
        for name, each in self.rewards.items():
            ece = "-" if each.calibration_error is None else f"{each.calibration_error:.3f}"
            rows.append(
                [
                    name,
                    mean(each.correct_mean),
                    mean(each.incorrect_mean),
                    text(each.rank_biserial),
                    mean(each.auroc),
                    text(each.auroc_within),
                    ece,
                    text(each.argmax_accuracy),
                ]
            )
        return [
            *aligned(rows),
            f"a random sample: {self.random.text(3)}, the best of {self.n}: {self.oracle.text(3)}; "
            f"{self.mixed_problems} of {self.problems} problems have both classes",
        ]


def _histogram(reward_B: np.ndarray, correct_B: np.ndarray) -> Histogram:
    low, high = np.quantile(reward_B, (_OUTLIERS, 1 - _OUTLIERS))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    inside = np.clip(reward_B, low, high)
    right, wrong = (np.histogram(inside[chosen], edges)[0] for chosen in (correct_B, ~correct_B))
    return Histogram(tuple(edges.tolist()), tuple(right.tolist()), tuple(wrong.tolist()))


def _argmax_correct(reward_Pn: np.ndarray, correct_Pn: np.ndarray) -> np.ndarray:
    """Share of correct ones among the samples of each problem's largest reward, [P]."""
    largest_Pn = reward_Pn == reward_Pn.max(axis=1, keepdims=True)
    return (largest_Pn & correct_Pn).sum(axis=1) / largest_Pn.sum(axis=1)


def _one_reward(
    name: str, reward_Pn: np.ndarray, correct_Pn: np.ndarray, seed: int, resamples: int
) -> RewardAnalysis:
    reward_B, correct_B = reward_Pn.ravel(), correct_Pn.ravel()
    wins_PP = pair_wins(reward_Pn, correct_Pn)
    pooled = auroc_pooled(wins_PP, correct_Pn, seed, resamples)
    within = auroc_within(wins_PP, correct_Pn, seed, resamples)
    argmax_P = _argmax_correct(reward_Pn, correct_Pn)
    gain_P = argmax_P - correct_Pn.mean(axis=1)
    accuracy, gain = mean_estimates(
        np.stack([argmax_P, gain_P], axis=1), [True, False], seed, resamples
    )
    calibration = None
    if name in CONFIDENCE:
        confidence_B = np.clip(CONFIDENCE[name](reward_B), 0.0, 1.0)
        calibration = confidence_bins(confidence_B, correct_B)
    return RewardAnalysis(
        correct_mean=class_mean(reward_Pn, correct_Pn, seed, resamples),
        incorrect_mean=class_mean(reward_Pn, ~correct_Pn, seed, resamples),
        rank_biserial=rank_biserial(pooled),
        auroc=pooled,
        rank_biserial_within=rank_biserial(within),
        auroc_within=within,
        argmax_accuracy=accuracy,
        argmax_gain=gain,
        reliability=quantile_bins(reward_B, correct_B),
        calibration=calibration,
        calibration_error=None if calibration is None else calibration_error(calibration),
        histogram=_histogram(reward_B, correct_B),
    )


def _finite(name: str, reward: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """The reward as float64 [P, n]. Raises `UserError` for another shape or a non-finite value."""
    reward_Pn = np.asarray(reward, np.float64)
    if reward_Pn.shape != shape:
        raise UserError(
            f"The reward {name!r} has shape {reward_Pn.shape} and correct has {shape}: give one "
            "value for each sample, [problems, samples]."
        )
    if not np.isfinite(reward_Pn).all():
        bad = np.argwhere(~np.isfinite(reward_Pn))
        problem, sample = bad[0]
        raise UserError(
            f"The reward {name!r} is {reward_Pn[problem, sample]} in row "
            f"{problem * shape[1] + sample} (problem {problem}, sample {sample}; {len(bad)} of "
            f"{reward_Pn.size} are not finite): the model's outputs have overflowed. Evaluate a "
            "checkpoint whose outputs are finite, or with --dtype float32."
        )
    return reward_Pn


def analyse(
    rewards: Mapping[str, ArrayLike],
    correct: ArrayLike,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Analysis:
    """Analyse rewards of samples, each float [problems, n], given `correct` bool [problems, n].

    Larger rewards stand for more certainty. Intervals are at 95%, over problems
    (`scores/bootstrap.py`); calibration errors have none, because a resample adds noise of
    its own to each bin.

    Raises:
        UserError: there is no sample, a reward has another shape, or a value is not finite; the
            message names the reward and the row, problem * n + sample.
    """
    correct_Pn = np.asarray(correct, bool)
    if correct_Pn.ndim != 2 or correct_Pn.size == 0:
        raise UserError(
            f"Certainty cannot be analysed on results of shape {correct_Pn.shape}: at least one "
            "problem with one sample is needed. Check the problem set."
        )
    checked = {name: _finite(name, each, correct_Pn.shape) for name, each in rewards.items()}
    solved_P = correct_Pn.any(axis=1)
    random, oracle = mean_estimates(
        np.stack([correct_Pn.mean(axis=1), solved_P], axis=1), [True, True], seed, resamples
    )
    return Analysis(
        problems=len(correct_Pn),
        n=correct_Pn.shape[1],
        mixed_problems=int((solved_P & ~correct_Pn.all(axis=1)).sum()),
        random=random,
        oracle=oracle,
        rewards={
            name: _one_reward(name, reward_Pn, correct_Pn, seed, resamples)
            for name, reward_Pn in checked.items()
        },
    )
