"""avg@n, pass@k, length and truncation of an evaluation, overall and by group."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from rlif_jax.errors import UserError
from rlif_jax.evaluation.scores.bootstrap import RESAMPLES, Estimate, mean_estimates
from rlif_jax.evaluation.scores.table import aligned, labelled

_ORDER = ("easy", "medium", "hard")  # of difficulties; other groups are in alphabetical order


@dataclass(frozen=True)
class SetScores:
    """Statistics of a set of problems by name: avg@n, each pass@k, length, truncated.

    avg@n is the mean share of correct samples, pass@k the chance that one of k samples or more is
    correct, both in [0, 1]; length is in tokens; truncated a share of samples. Each is the mean
    over problems of the problem's own value.
    """

    problems: int
    statistics: dict[str, Estimate]


@dataclass(frozen=True)
class Scores:
    """Scores of an evaluation with `n` samples of each problem.

    `groups` holds, for each grouping (platform, difficulty) and each of its values, the scores of
    the problems that have it, as if they were the whole set. `dataclasses.asdict` turns it into
    JSON, `from_json` back.
    """

    n: int
    overall: SetScores
    groups: dict[str, dict[str, SetScores]]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The scores that `dataclasses.asdict` was given."""

        def of(part: Mapping[str, Any]) -> SetScores:
            statistics = {name: Estimate(**each) for name, each in part["statistics"].items()}
            return SetScores(part["problems"], statistics)

        groups = {
            grouping: {value: of(part) for value, part in parts.items()}
            for grouping, parts in data["groups"].items()
        }
        return cls(data["n"], of(data["overall"]), groups)

    def lines(self) -> list[str]:
        """A table: a row for all problems and for each group, 95% intervals in brackets."""
        # pass@1 is avg@n, so one column stands for both.
        names = [name for name in self.overall.statistics if name != "pass@1"]
        average = f"avg@{self.n}"
        both = f"{average} = pass@1" if "pass@1" in self.overall.statistics else average
        rows = [["", "problems", *(both if name == average else name for name in names)]]
        for label, part in labelled(self.overall, self.groups):
            cells = [part.statistics[name].text(decimals(name)) for name in names] if part else []
            rows.append([label, str(part.problems) if part else "", *cells])
        return aligned(rows)


def decimals(statistic: str) -> int:
    """Decimals that a table shows of a statistic."""
    return 1 if statistic == "length" else 3


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), section 2.1.

    Computed as one minus a product of factors in [0, 1], so no binomial coefficient overflows.
    Raises `UserError` unless 1 <= k <= n.
    """
    if not 1 <= k <= n:
        raise UserError(
            f"pass@{k} cannot be estimated from {n} samples per problem: k must be between 1 and "
            "the number of samples. Lower k or take more samples of each problem."
        )
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def default_ks(n: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to n, and n itself."""
    return tuple(sorted({2**power for power in range(n.bit_length())} | {n}))


def per_problem(
    correct: np.ndarray, length: np.ndarray, truncated: np.ndarray, ks: Sequence[int], average: str
) -> dict[str, np.ndarray]:
    """Each statistic of each problem by name, float [problems], from arrays [problems, n].

    `average` is the name of the share of correct samples.
    """
    n = correct.shape[1]
    count_P = correct.sum(axis=1)
    chance = {k: np.array([pass_at_k(n, c, k) for c in range(n + 1)]) for k in ks}
    return {
        average: correct.mean(axis=1),
        **{f"pass@{k}": chance[k][count_P] for k in ks},
        "length": length.mean(axis=1),
        "truncated": truncated.mean(axis=1),
    }


def members_of(groups: Mapping[str, Sequence[str]]) -> dict[str, dict[str, np.ndarray]]:
    """For each grouping and each of its values the bool mask [problems] of those that have it.

    A problem whose value is empty is in no group of that grouping; a grouping without any value is
    left out.
    """
    rank = lambda value: (_ORDER.index(value) if value in _ORDER else len(_ORDER), value)
    masks = {
        grouping: {
            value: np.array([each == value for each in values])
            for value in sorted(set(values) - {""}, key=rank)
        }
        for grouping, values in groups.items()
    }
    return {grouping: parts for grouping, parts in masks.items() if parts}


def summarise(
    correct: ArrayLike,
    length: ArrayLike,
    truncated: ArrayLike,
    groups: Mapping[str, Sequence[str]] | None = None,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scores:
    """avg@n, pass@k, mean length and truncated fraction, overall and by group, with 95% intervals.

    `correct`, `truncated` bool and `length` in tokens, all [problems, n]. `groups` gives each
    problem's value of each grouping, "" for none. `ks` are the k of pass@k (default: 1, 2, 4, ...
    and n). Intervals: see `bootstrap.py`; `seed` fixes them, and a group's are those
    of its problems alone.

    Raises:
        UserError: there is no problem, a k is not between 1 and n, or shapes differ.
    """
    correct_Pn, length_Pn = np.asarray(correct, bool), np.asarray(length)
    truncated_Pn = np.asarray(truncated, bool)
    shape = correct_Pn.shape
    if len(shape) != 2 or correct_Pn.size == 0:
        raise UserError(
            f"No accuracy can be computed from results of shape {shape}: at least one problem "
            "with one sample is needed. Check the problem set and eval.max_problems."
        )
    lengths = {name: len(values) for name, values in (groups or {}).items()}
    if {length_Pn.shape, truncated_Pn.shape} != {shape} or set(lengths.values()) - {shape[0]}:
        raise UserError(
            f"The results do not belong together: correct {shape}, length {length_Pn.shape}, "
            f"truncated {truncated_Pn.shape}, values of groups {lengths}. Give arrays "
            "[problems, samples] and one value of a group for each problem."
        )
    n = shape[1]
    ks = default_ks(n) if ks is None else sorted(set(ks))
    values = per_problem(correct_Pn, length_Pn, truncated_Pn, ks, f"avg@{n}")
    names = tuple(values)
    values_PS = np.stack(list(values.values()), axis=1)
    bounded = [name != "length" for name in names]

    def scores_of(members: Any) -> SetScores:
        part = values_PS[members]
        estimates = mean_estimates(part, bounded, seed, resamples)
        return SetScores(len(part), dict(zip(names, estimates, strict=True)))

    parts = {
        grouping: {value: scores_of(members) for value, members in masks.items()}
        for grouping, masks in members_of(groups or {}).items()
    }
    return Scores(n, scores_of(slice(None)), parts)


def eval_metrics(dataset: str, scores: Scores) -> dict[str, float]:
    """The `eval/<dataset>/` metrics: avg@n, avg@n_low, avg@n_high, pass@k, response_length.

    There is a pass@k for each k that the scores were made with.
    """
    statistics = scores.overall.statistics
    name = f"avg@{scores.n}"
    metrics = {
        name: statistics[name].value,
        f"{name}_low": statistics[name].low,
        f"{name}_high": statistics[name].high,
        **{key: each.value for key, each in statistics.items() if key.startswith("pass@")},
        "response_length": statistics["length"].value,
    }
    return {f"eval/{dataset}/{key}": value for key, value in metrics.items()}
