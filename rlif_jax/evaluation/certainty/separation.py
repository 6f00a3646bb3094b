"""How far a reward separates correct from incorrect responses: areas under ROC curves.

AUROC is the chance that a random correct response has a larger reward than a random incorrect one,
ties counting one half: the Mann-Whitney U of the correct ones over the number of pairs (Hanley and
McNeil 1982, doi 10.1148/radiology.143.1.7063747). The rank-biserial correlation is
r = 2 AUROC - 1: pairs won by the correct response less pairs lost, over all pairs (Kerby 2014,
doi 10.2466/11.IT.3.1). Positive: correct responses have larger rewards.
"""

import numpy as np

from rlif_jax.evaluation.scores.bootstrap import (
    Estimate,
    interval,
    mean_estimates,
    resampled_weights,
)


def pair_wins(reward_Pn: np.ndarray, correct_Pn: np.ndarray) -> np.ndarray:
    """Pairs that the correct responses of problem i win against the incorrect ones of problem j.

    float64 [P, P], a tie counting one half.
    """
    problems = len(reward_Pn)
    owner = np.nonzero(correct_Pn)[0]
    right = reward_Pn[correct_Pn]
    wins_PP = np.zeros((problems, problems))
    for j in np.flatnonzero(~correct_Pn.all(axis=1)):
        wrong = np.sort(reward_Pn[j][~correct_Pn[j]])
        # Mean of those below and those not above: a tie is in the second count only.
        won = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
        wins_PP[:, j] = np.bincount(owner, won / 2, problems)
    return wins_PP


def auroc_pooled(
    wins_PP: np.ndarray, correct_Pn: np.ndarray, seed: int, resamples: int
) -> Estimate | None:
    """AUROC over all samples, with the interval over problems; None without both classes.

    A pair of two problems has the product of their weights.
    """
    right_P = correct_Pn.sum(axis=1).astype(np.float32)
    wrong_P = correct_Pn.shape[1] - right_P
    if not right_P.any() or not wrong_P.any():
        return None
    solved, failed = np.flatnonzero(right_P), np.flatnonzero(wrong_P)
    wins_SF = wins_PP[np.ix_(solved, failed)].astype(np.float32)
    draws = []
    for weight_RP in resampled_weights(len(wins_PP), resamples, seed):
        solved_RS, failed_RF = weight_RP[:, solved], weight_RP[:, failed]
        won_R = ((solved_RS @ wins_SF) * failed_RF).sum(axis=1)
        draws.append(won_R / ((solved_RS @ right_P[solved]) * (failed_RF @ wrong_P[failed])))
    value = wins_PP.sum() / (float(right_P.sum()) * float(wrong_P.sum()))
    # The class in fewer problems says how much is known.
    return interval(np.concatenate(draws), value, min(len(solved), len(failed)))


def auroc_within(
    wins_PP: np.ndarray, correct_Pn: np.ndarray, seed: int, resamples: int
) -> Estimate | None:
    """Mean over the problems that have both classes of the AUROC among their own samples.

    What a problem's difficulty does to reward and correctness alike is not in it. None where no
    problem has both classes.
    """
    right_P = correct_Pn.sum(axis=1)
    pairs_P = right_P * (correct_Pn.shape[1] - right_P)
    mixed = pairs_P > 0
    if not mixed.any():
        return None
    share = (np.diagonal(wins_PP)[mixed] / pairs_P[mixed])[:, None]
    return mean_estimates(share, [True], seed, resamples)[0]


def rank_biserial(auroc: Estimate | None) -> Estimate | None:
    """r = 2 AUROC - 1, with its interval."""
    if auroc is None:
        return None
    low, high = (None if x is None else 2 * x - 1 for x in (auroc.low, auroc.high))
    return Estimate(2 * auroc.value - 1, low, high)


def class_mean(
    reward_Pn: np.ndarray, chosen_Pn: np.ndarray, seed: int, resamples: int
) -> Estimate | None:
    """Mean reward of the chosen samples, with the interval over problems; None without any."""
    count_P = chosen_Pn.sum(axis=1).astype(np.float64)
    if not count_P.any():
        return None
    value = reward_Pn[chosen_Pn].mean()
    above_P = np.where(chosen_Pn, reward_Pn - value, 0.0).sum(axis=1)
    draws = []
    for weight_RP in resampled_weights(len(reward_Pn), resamples, seed):
        real_RP = weight_RP[:, :-2].astype(np.float64)
        draws.append(value + (real_RP @ above_P) / (real_RP @ count_P))
    # Only the problems that have such a sample tell of the class.
    return interval(np.concatenate(draws), value, int((count_P > 0).sum()))
