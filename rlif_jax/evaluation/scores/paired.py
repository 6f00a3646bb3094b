"""Two evaluations on the same problems: is one better?

Problems are paired, so what they share (their difficulty) cancels. Interval: the Bayesian bootstrap
over problems of `bootstrap.py`. p-value: a sign-flip permutation test over problems
(Fisher 1935; two-sided on the absolute mean difference), whose null hypothesis is that the two
results of a problem could as well be exchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlif_jax.errors import UserError, shown
from rlif_jax.evaluation.scores.bootstrap import RESAMPLES, Estimate, mean_estimates
from rlif_jax.evaluation.scores.per_sample import PerSample
from rlif_jax.evaluation.scores.summary import decimals, default_ks, members_of, per_problem
from rlif_jax.evaluation.scores.table import aligned, labelled

FLIPS = 10_000
"""Random sign patterns of the permutation test; up to this many are enumerated: p is exact."""

_CHUNK_ENTRIES = 2_000_000
_TIE = 1e-9  # of the mean difference: what rounding makes of equal sums
_AVERAGE = "avg@n"


@dataclass(frozen=True)
class Difference:
    """A statistic of the first and of the second result, second minus first, and its p-value."""

    first: float
    second: float
    difference: Estimate
    p_value: float


@dataclass(frozen=True)
class SetComparison:
    """Differences on a set of problems by name: avg@n, each shared pass@k, length, truncated."""

    problems: int
    statistics: dict[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """Two results on the same problems. `dataclasses.asdict` turns it into JSON.

    `names` of the two, their samples per problem `n`, and how many problems only one of them has,
    which are `left_out`. p-values of groups are not corrected for their number.
    """

    names: tuple[str, str]
    n: tuple[int, int]
    left_out: tuple[int, int]
    overall: SetComparison
    groups: dict[str, dict[str, SetComparison]]

    def lines(self) -> list[str]:
        """A table: for all problems and for each group a row for each statistic."""
        first, second = self.names
        lines = [f"A: {first}", f"B: {second}"]
        if any(self.left_out):
            lines.append(
                f"left out: {self.left_out[0]} problems only in A, {self.left_out[1]} only in B"
            )
        n = str(self.n[0]) if self.n[0] == self.n[1] else f"({self.n[0]}, {self.n[1]})"
        rows = [["", "", "problems", "A", "B", "B - A (95% interval)", "p"]]
        for label, part in labelled(self.overall, self.groups):
            if part is None:
                rows.append([label])
                continue
            for name, each in part.statistics.items():
                if name == "pass@1":
                    continue  # it is avg@n
                places = decimals(name)
                rows.append(
                    [
                        label,
                        name.replace("@n", f"@{n}"),
                        str(part.problems),
                        f"{each.first:.{places}f}",
                        f"{each.second:.{places}f}",
                        each.difference.text(places, signed=True),
                        f"{each.p_value:.4f}",
                    ]
                )
        return lines + aligned(rows, left=2)


def sign_flip_p_values(difference_PS: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-sided p-values [S] of mean differences being zero, float [problems, S].

    The share of sign patterns of the problems whose absolute mean is not below the observed one.
    All patterns are tried where there are at most `FLIPS`, problems without a difference not
    counting; else `FLIPS` random ones, the observed one counted among them, so that p is at least
    1 / (FLIPS + 1) (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585).
    """
    moved_MS = difference_PS[np.any(difference_PS != 0, axis=1)]
    problems = len(moved_MS)
    least_S = np.abs(moved_MS.sum(axis=0)) * (1 - _TIE)
    if 2**problems <= FLIPS:
        bits = np.arange(2**problems)[:, None] >> np.arange(problems) & 1
        return (np.abs((1.0 - 2.0 * bits) @ moved_MS) >= least_S).mean(axis=0)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_ENTRIES // problems)
    count_S = np.ones(moved_MS.shape[1])
    for start in range(0, FLIPS, chunk):
        flips = rng.integers(0, 2, (min(chunk, FLIPS - start), problems), np.int8)
        count_S += (np.abs((1.0 - 2.0 * flips) @ moved_MS) >= least_S).sum(axis=0)
    return count_S / (FLIPS + 1)


def _paired(
    a: PerSample, b: PerSample, names: tuple[str, str], common: bool
) -> tuple[PerSample, PerSample, tuple[int, int]]:
    """Both results on the problems that both have, and how many each has alone.

    Raises:
        UserError: there are others and `common` is not set, or there are no common ones.
    """
    in_a, in_b = set(a.ids), set(b.ids)
    both = [each for each in a.ids if each in in_b]
    only_a, only_b = [i for i in a.ids if i not in in_b], [i for i in b.ids if i not in in_a]
    if (only_a or only_b) and not (common and both):
        alone = " and ".join(
            f"{len(ids)} only in {name} ({shown(ids[0])}{', ...' if len(ids) > 1 else ''})"
            for ids, name in zip((only_a, only_b), names, strict=True)
            if ids
        )
        remedy = (
            f"Evaluate the same set twice, or compare the {len(both)} common ones by --common."
            if both
            else "Give two evaluations of one problem set."
        )
        raise UserError(
            f"{names[0]} and {names[1]} are not of the same problems: {len(both)} are in both, "
            f"{alone}. {remedy}"
        )
    return a.only(both), b.only(both), (len(only_a), len(only_b))


def compare(
    a: Any,
    b: Any,
    *,
    names: tuple[str, str] = ("A", "B"),
    common: bool = False,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Paired differences, `b` minus `a`, with 95% intervals and p-values, overall and by group.

    `a` and `b` are result files of an evaluation as JSON gives them, `names` what messages and
    tables call them. `common` compares the problems that both have where the sets differ. `ks`
    default to 1, 2, 4, ... up to the smaller number of samples. Groups are those of `a`.

    Raises:
        UserError: a file has another form, the sets differ, or a k is above the samples of one.
    """
    first, second = (PerSample.from_json(*each) for each in zip((a, b), names, strict=True))
    first, second, left_out = _paired(first, second, names, common)
    n = (first.correct.shape[1], second.correct.shape[1])
    ks = default_ks(min(n)) if ks is None else sorted(set(ks))
    values = [
        per_problem(each.correct, each.length, each.truncated, ks, _AVERAGE)
        for each in (first, second)
    ]
    statistics = tuple(values[0])
    first_PS, second_PS = (np.stack(list(each.values()), axis=1) for each in values)

    def compared(members: Any) -> SetComparison:
        old, new = first_PS[members], second_PS[members]
        # Equal chances from different n differ by rounding, which is no difference.
        difference_PS = np.round(new - old, 12)
        estimates = mean_estimates(difference_PS, [False] * len(statistics), seed, resamples)
        p_values = sign_flip_p_values(difference_PS, seed)
        rows = zip(old.mean(axis=0), new.mean(axis=0), estimates, p_values, strict=True)
        differences = [Difference(float(x), float(y), each, float(p)) for x, y, each, p in rows]
        return SetComparison(len(old), dict(zip(statistics, differences, strict=True)))

    groups = {
        grouping: {value: compared(members) for value, members in masks.items()}
        for grouping, masks in members_of(first.groups).items()
    }
    return Comparison(names, n, left_out, compared(slice(None)), groups)
