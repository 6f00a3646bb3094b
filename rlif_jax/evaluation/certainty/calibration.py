"""Reliability: how often responses are correct, by reward and by confidence."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

BINS = 10

CONFIDENCE = {
    "probability_disparity": lambda reward: reward,
    "trajectory_entropy": np.exp,
    "trajectory_entropy_sum": np.exp,
}
"""Rewards that are, or stand for, a probability, and the map to it: the probability disparity as it
is, the geometric mean of the tokens' probabilities, and the probability of the whole response.
Self-certainty and token entropy have no bound or no such reading, so no calibration error."""


@dataclass(frozen=True)
class Bin:
    """Samples of a bin: how many, the range and mean of what it is made by, the share correct."""

    samples: int
    low: float
    high: float
    mean: float
    accuracy: float


def _bins(value_B: np.ndarray, correct_B: np.ndarray, number_B: np.ndarray) -> tuple[Bin, ...]:
    """The bins that have samples, in order of their number."""
    bins = []
    for number in np.unique(number_B):
        inside = number_B == number
        value = value_B[inside]
        low, high, mean = float(value.min()), float(value.max()), float(value.mean())
        bins.append(Bin(int(inside.sum()), low, high, mean, float(correct_B[inside].mean())))
    return tuple(bins)


def quantile_bins(reward_B: np.ndarray, correct_B: np.ndarray) -> tuple[Bin, ...]:
    """Accuracy in tenths of the samples by rank of reward, lowest first.

    Samples of one reward share their middle rank, so they are in one bin; a bin may stay empty and
    is then left out.
    """
    rank_B = stats.rankdata(reward_B)  # from 1; ties have their mean
    number_B = np.floor((rank_B - 0.5) / len(reward_B) * BINS).astype(int)
    return _bins(reward_B, correct_B, number_B)


def confidence_bins(confidence_B: np.ndarray, correct_B: np.ndarray) -> tuple[Bin, ...]:
    """Accuracy in tenths of [0, 1] by confidence; a bin without samples is left out."""
    number_B = np.minimum(np.floor(confidence_B * BINS).astype(int), BINS - 1)
    return _bins(confidence_B, correct_B, number_B)


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: mean over samples of |accuracy - mean confidence| of their bin.

    Guo et al. 2017 (arXiv 1706.04599), equation 3, with ten bins of equal width. It is above zero
    for a calibrated confidence, too, by the noise of the bins: compare it at equal sample sizes.
    """
    samples = sum(each.samples for each in bins)
    return sum(each.samples * abs(each.accuracy - each.mean) for each in bins) / samples
