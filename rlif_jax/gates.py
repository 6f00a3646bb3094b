"""Gates on the data: which groups a step learns from, and which of their completions.

A gate looks at programs, votes and entropies, never at rewards. A group that fails one is treated
like a group whose rewards are equal: its advantages are 0, its completions stay in the denominator
of the loss, and dynamic sampling replaces it. A completion that fails is left out of the loss and
of its denominator, while its reward still counts in its group.
"""

from collections.abc import Sequence

import numpy as np

from rlif_jax.batch import Array, TokenStats
from rlif_jax.config import Gates
from rlif_jax.errors import UserError
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.rewards.consensus import behaviours, vote_entropy

_NOT_COMPILED = {Verdict.NO_CODE, Verdict.COMPILE_ERROR}


def open_groups(
    gates: Gates,
    outcomes: Sequence[Outcome] | None,
    votes: Sequence[Outcome] | None,
    groups: int,
    made: bool = False,
) -> np.ndarray:
    """Which of the N groups pass every gate, bool [N]; all of them where no gate is on.

    `outcomes` are those of the tests, one per row n * G + g, and `votes` those on the inputs of
    votes, None where these are the tests; they may be `made`, see `rewards.consensus`. Votes of too
    little or too much entropy are those of EMPO (arXiv 2504.05812); a group without a vote has 0
    classes and an entropy of 0.

    Raises:
        UserError: programs were not run, or not on all inputs of votes.
    """
    open_N = np.ones(groups, bool)
    if not gates.of_groups:
        return open_N
    if outcomes is None:
        raise UserError("gates read the outcomes of programs, which were not run")
    group_size = len(outcomes) // groups
    compiles_B = np.array([outcome.verdict not in _NOT_COMPILED for outcome in outcomes])
    open_N &= compiles_B.reshape(groups, group_size).mean(axis=1) >= gates.min_compiling
    if gates.min_behaviours > 1 or gates.vote_entropy is not None:
        low, high = gates.vote_entropy or (0.0, np.inf)
        for n, classes in enumerate(behaviours(votes or outcomes, group_size, made)):
            open_N[n] &= len(classes) >= gates.min_behaviours
            open_N[n] &= low <= vote_entropy(classes) <= high
    return open_N


def kept_rows(gates: Gates, stats: TokenStats, mask_BC: Array) -> np.ndarray:
    """Which rows of a step are not of outstandingly little entropy, bool [B].

    Left out are those whose mean token entropy is less than Q1 - low_entropy_iqr * (Q3 - Q1), with
    the quartiles of these rows, by linear interpolation, in float64 on the host (the one-sided IQR
    filter of M-GRPO, arXiv 2512.13070).
    """
    mask_BC = np.asarray(mask_BC, bool)
    if gates.low_entropy_iqr is None:
        return np.ones(len(mask_BC), bool)
    entropy_B = np.asarray(stats.entropy, np.float64).sum(axis=1, where=mask_BC)
    entropy_B /= np.maximum(mask_BC.sum(axis=1), 1)
    first, third = np.quantile(entropy_B, (0.25, 0.75))
    return entropy_B >= first - gates.low_entropy_iqr * (third - first)


def gate_metrics(gates: Gates, open_N: np.ndarray, kept_B: np.ndarray) -> dict[str, float]:
    """The `gates/` metrics of the gates that are on: the shares of groups and of rows that pass.

    - gates/open_groups: groups that pass every gate, of all that were drawn.
    - gates/kept_rows: completions that the filter of little entropy keeps, of all that were drawn.
    """
    metrics = {}
    if gates.of_groups:
        metrics["gates/open_groups"] = float(open_N.mean())
    if gates.low_entropy_iqr is not None:
        metrics["gates/kept_rows"] = float(kept_B.mean())
    return metrics
