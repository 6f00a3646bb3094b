"""What runs with several seeds say together: intervals, paired tests, and a sentence.

All tests are Student's t over seeds, by scipy. With the two to five seeds of a study they have
little power, so a sentence claims something only where an interval supports it: that a number did
not change is claimed by an equivalence test, never by a test that found nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
_SAME = 1e-12  # a deviation that is but rounding


@dataclass(frozen=True)
class SeedMean:
    """The mean of n seeds, their standard deviation, and the 95% interval of the mean.

    Of a single seed there is neither: `std`, `low` and `high` are None.
    """

    value: float
    n: int
    std: float | None = None
    low: float | None = None
    high: float | None = None

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """As a table shows it, `scale` times."""
        if self.low is None or self.high is None:
            return f"{scale * self.value:z.{digits}f}"
        low, high = (f"{scale * end:z.{digits}f}" for end in (self.low, self.high))
        return f"{scale * self.value:z.{digits}f} ({low} to {high})"


@dataclass(frozen=True)
class Change:
    """A paired difference over seeds: its mean, p of it being 0, and Cohen's d of the pairs.

    Both are None of a single pair, and where all pairs differ alike: accuracies lie on a grid, so
    that two seeds often do by chance, and there is no noise to hold a change against.
    """

    difference: SeedMean
    p: float | None
    effect: float | None


def seed_mean(values: ArrayLike) -> SeedMean:
    """Mean over seeds with Student's 95% interval. Raises ValueError for none."""
    from scipy.stats import t

    x = np.asarray(values, np.float64)
    if not x.size:
        raise ValueError("no seed")
    if x.size == 1:
        return SeedMean(float(x[0]), 1)
    std = float(x.std(ddof=1))
    half = float(t.ppf((1 + LEVEL) / 2, x.size - 1)) * std / math.sqrt(x.size)
    mean = float(x.mean())
    return SeedMean(mean, x.size, std, mean - half, mean + half)


def change(before: ArrayLike, after: ArrayLike) -> Change:
    """`after` minus `before`, seed by seed."""
    from scipy.stats import t

    pairs = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    mean = seed_mean(pairs)
    if mean.std is None or mean.std < _SAME:
        return Change(mean, None, None)
    distance = abs(mean.value) / mean.std * math.sqrt(mean.n)
    return Change(mean, float(2 * t.sf(distance, mean.n - 1)), mean.value / mean.std)


def equivalence_p(mean: SeedMean, margin: float) -> float | None:
    """p of a mean over seeds being at least `margin` away from 0; None of one, or of equal ones.

    Two one-sided t-tests (Schuirmann 1987): the larger of their p-values. Below 0.025 the 95%
    interval of the mean is within the margin.
    """
    from scipy.stats import t

    if mean.std is None or mean.std < _SAME:
        return None
    error = mean.std / math.sqrt(mean.n)
    above = t.sf((mean.value + margin) / error, mean.n - 1)
    below = t.cdf((mean.value - margin) / error, mean.n - 1)
    return float(max(above, below))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: at 0.05 the chance of any false claim among them is 5%."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(order), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min((len(order) - rank) * p_values[index], 1.0))
        adjusted[index] = largest
    return adjusted


def sentence(
    one: Change, against: str, adjusted_p: float | None, within_p: float | None, margin: float
) -> str:
    """What may be said of a change in accuracy `against` something, in points of a hundred.

    `adjusted_p` is Holm's of the change, `within_p` that of `equivalence_p`.
    """
    difference = one.difference
    points = difference.text(100)
    if difference.low is None or difference.high is None:
        return f"{points} points against {against}; one seed allows no claim"
    if adjusted_p is None:
        return (
            f"{100 * difference.value:z.1f} points against {against} with each of {difference.n} "
            "seeds: equal changes allow no claim"
        )
    if adjusted_p < 1 - LEVEL and not difference.low <= 0 <= difference.high:
        if difference.value > 0:
            return f"gains {points} points against {against}"
        lost = replace(
            difference, value=-difference.value, low=-difference.high, high=-difference.low
        )
        return f"loses {lost.text(100)} points against {against}"
    if within_p is not None and within_p < (1 - LEVEL) / 2:  # then the interval is within, too
        return f"within {100 * margin:g} points of {against}: {points}"
    return f"undecided against {against}: {points} points"
