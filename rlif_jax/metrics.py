"""What a step has, as the numbers of metrics.jsonl: pure functions, reduced on the host in float64.

Arrays may be NumPy or JAX arrays. A mean over nothing (no rows, no completed row, no word) is 0.0,
so that every key is present and finite at every step; a non-finite input shows in its metric and is
refused by the run log.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from rlif_jax.batch import TokenStats
from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.groups import group_statistics
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.rewards.consensus import answers_known, behaviours, vote_entropy

REASONING_MARKERS = (
    "wait", "hmm", "okay", "but", "so", "because", "since", "therefore", "thus", "hence",
    "however", "although", "alternatively", "instead", "actually", "maybe", "perhaps",
    "first", "second", "then", "next", "finally", "again",
    "let me", "let's", "think", "check", "verify", "consider", "suppose", "assume", "recall",
)  # fmt: skip
"""Words that mark thinking out loud, counted whole and without case. The paper's list is not
published: this one is ours, so compare runs with one another and not with the paper's panel."""

REPETITION_NGRAM = 4
"""Words in the n-grams of the repetition ratio. The paper's n is not published."""

_THINK_TAG = re.compile(r"</?think>")
_MARKER = re.compile(
    r"\b(?:"
    + "|".join(re.escape(w) for w in sorted(REASONING_MARKERS, key=len, reverse=True))
    + r")\b",
    re.IGNORECASE,
)


def _mean(values: ArrayLike) -> float:
    values = np.asarray(values, np.float64)
    return float(values.mean()) if values.size else 0.0


def _std(values: np.ndarray) -> float:
    """Unbiased standard deviation, 0.0 of fewer than two values."""
    return float(values.std(ddof=1, dtype=np.float64)) if values.size > 1 else 0.0


def _row_means(values_BC: ArrayLike, mask_BC: np.ndarray) -> np.ndarray:
    """Mean over the true entries of each row that has any; rows without one are left out."""
    kept_BC = np.where(mask_BC, np.asarray(values_BC, np.float64), 0.0)
    count_B = mask_BC.sum(axis=1)
    return kept_BC.sum(axis=1)[count_B > 0] / count_B[count_B > 0]


def repetition_ratio(text: str, n: int = REPETITION_NGRAM) -> float:
    """Share of a text's word n-grams that occurred before: 1 - distinct / total, in [0, 1).

    Words are runs of non-blank characters. A text shorter than n words repeats nothing: 0.0.
    """
    grams = _ngrams(text, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_ratio(texts: Sequence[str], n: int = REPETITION_NGRAM) -> float:
    """Share of all word n-grams of these texts that are different ones (distinct-n), in [0, 1].

    Source: Li et al. 2016, arXiv 1510.03055. 0.0 of texts shorter than n words.
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def rank_biserial(values_B: ArrayLike, positive_B: ArrayLike) -> float:
    """How well values tell positive rows from others, in [-1, 1]: 2 AUROC - 1; ties count half.

    P(value of a positive > of another) - P(it is less). 0.0 where either class is empty.
    """
    positive_B = np.asarray(positive_B, bool)
    ones, others = int(positive_B.sum()), int((~positive_B).sum())
    if not ones or not others:
        return 0.0
    _, place_B, count = np.unique(np.asarray(values_B), return_inverse=True, return_counts=True)
    rank_sum = (np.cumsum(count) - (count - 1) / 2)[place_B][positive_B].sum()
    return float(2 * (rank_sum - ones * (ones + 1) / 2) / (ones * others) - 1)


def count_reasoning_markers(text: str) -> int:
    """Number of `REASONING_MARKERS` in a text: whole words, any case, "let me" counting once.

    The tags around a thought do not count, whether the completion or its prompt opened it.
    """
    return len(_MARKER.findall(_THINK_TAG.sub(" ", text.replace("\u2019", "'"))))


def rollout_metrics(
    stats: TokenStats,
    mask_BC: ArrayLike,
    truncated_B: ArrayLike,
    texts: Sequence[str] | None = None,
    *,
    max_new_tokens: int,
    sampler_stats: TokenStats | None = None,
    group_size: int = 1,
) -> dict[str, float]:
    """The `rollout/`, `stats/` and `drift/` metrics of the sampled completions.

    `stats` [B, C] at the sampling temperature; `mask_BC` bool, true up to and including the first
    end-of-sequence token; `truncated_B` bool. `texts` are the decoded completions: without them the
    text metrics are left out. `sampler_stats` is what the sampler recorded: without it there
    is no drift.

    - rollout/action_reward = sum of mask * logprob over B * max_new_tokens (the paper's panel c).
    - rollout/distinct_ratio is the mean over groups of `distinct_ratio` of their texts.
    - stats/* are means over rows of the row's token mean, as the rewards define them; both
      entropies are positive nats (trajectory_entropy = -mean of ln p(token)); self_certainty keeps
      its ln V.
    - drift/sampler_logprob is the mean over tokens of |sampler - scorer| in nats, _max the largest;
      drift/sampler_entropy, _self_certainty and _probability_disparity are means likewise.
    """
    mask_BC = np.asarray(mask_BC, bool)
    logprob_BC = np.where(mask_BC, np.asarray(stats.logprob, np.float64), 0.0)
    rows = mask_BC.shape[0]
    disparity_BC = np.asarray(stats.top1, np.float64) - np.asarray(stats.top2, np.float64)
    metrics = {
        "rollout/response_length": _mean(mask_BC.sum(axis=1)),
        "rollout/truncated_fraction": _mean(truncated_B),
        "rollout/action_reward": float(logprob_BC.sum()) / max(rows * max_new_tokens, 1),
        "stats/trajectory_entropy": _mean(-_row_means(logprob_BC, mask_BC)),
        "stats/token_entropy": _mean(_row_means(stats.entropy, mask_BC)),
        "stats/self_certainty": _mean(_row_means(stats.self_certainty, mask_BC)),
        "stats/probability_disparity": _mean(_row_means(disparity_BC, mask_BC)),
    }
    if texts is not None:
        metrics["rollout/reasoning_tokens"] = _mean([count_reasoning_markers(t) for t in texts])
        metrics["rollout/repetition_ratio"] = _mean([repetition_ratio(t) for t in texts])
        groups = [texts[i : i + group_size] for i in range(0, len(texts), group_size)]
        metrics["rollout/distinct_ratio"] = _mean([distinct_ratio(group) for group in groups])
    if sampler_stats is not None:
        metrics |= _drift(sampler_stats, stats, mask_BC)
    return metrics


def _drift(sampler: TokenStats, scorer: TokenStats, mask_BC: np.ndarray) -> dict[str, float]:
    """How far the sampler's statistics of the tokens are from the trainer's."""

    def of(stats: TokenStats) -> dict[str, np.ndarray]:
        values = {
            "logprob": stats.logprob,
            "entropy": stats.entropy,
            "self_certainty": stats.self_certainty,
            "probability_disparity": np.asarray(stats.top1) - np.asarray(stats.top2),
        }
        return {name: np.asarray(value, np.float64)[mask_BC] for name, value in values.items()}

    sampled, scored = of(sampler), of(scorer)
    distance = {name: np.abs(sampled[name] - scored[name]) for name in sampled}
    largest = distance["logprob"]
    return {
        **{f"drift/sampler_{name}": _mean(value) for name, value in distance.items()},
        "drift/sampler_logprob_max": float(largest.max()) if largest.size else 0.0,
    }


def reward_metrics(
    reward_B: ArrayLike,
    terms: Mapping[str, ArrayLike],
    group_size: int,
    std_floor: float = Loss.std_floor,
) -> dict[str, float]:
    """The `reward/` metrics: mean and std over rows, each term's mean, and spread within groups.

    `reward_B` and each term float [B] with row = n * G + g. Standard deviations are unbiased, as in
    the advantage. reward/group_std is the mean over groups of the std within a group;
    reward/zero_std_groups the fraction of groups that do not differ by `std_floor`, whose
    advantages are 0 but with loss.advantage=none. Raises `UserError` for a term whose name is one
    of these keys.
    """
    reward_B = np.asarray(reward_B)
    group = group_statistics(reward_B, group_size, std_floor)
    metrics = {
        "reward/mean": _mean(reward_B),
        "reward/std": _std(reward_B),
        "reward/group_std": _mean(group.std),
        "reward/zero_std_groups": _mean(~group.differs),
    }
    for name, term_B in terms.items():
        if f"reward/{name}" in metrics:
            raise UserError(
                f"The reward term {name!r} has the name of a metric (reward/{name}); rename the "
                "reward function, for instance to my_" + name + "."
            )
        metrics[f"reward/{name}"] = _mean(term_B)
    return metrics


def execution_metrics(
    outcomes: Sequence[Outcome],
    reward_B: ArrayLike,
    group_size: int,
    votes: Sequence[Outcome] | None = None,
    generated: Sequence[int] | None = None,
    made: bool = False,
) -> dict[str, float]:
    """The `exec/` metrics: pass_rate, mean tests_fraction, and the share of every verdict.

    exec/reward_rank_biserial says how well the reward tells programs that pass from others. Where
    each reward is 0 or 1, exec/reward_accuracy is the share that is that of the tests. Where the
    answers to all inputs are known, those of `vote_metrics` come as well. `votes` are the
    outcomes on the inputs of votes, by default those on the tests, and `generated` says of each row
    how many of these, the last ones, the policy has written; the inputs of votes may be `made`, see
    `rewards.consensus`. All verdicts of an outcome are present, also those that did not occur;
    their shares add up to 1.
    """
    verdicts = [o.verdict for o in outcomes]
    metrics = {
        "exec/pass_rate": _mean([o.passed for o in outcomes]),
        "exec/tests_fraction": _mean([o.fraction_passed for o in outcomes]),
        "exec/reward_rank_biserial": rank_biserial(reward_B, [o.passed for o in outcomes]),
    }
    if np.isin(reward_B, (0, 1)).all():
        metrics["exec/reward_accuracy"] = _mean(np.equal(reward_B, [o.passed for o in outcomes]))
    for verdict in Verdict:
        metrics[f"exec/{verdict.value}"] = _mean([v is verdict for v in verdicts])
    votes = outcomes if votes is None else votes
    if all(answers_known(outcome) for outcome in votes):
        metrics |= vote_metrics(votes, outcomes, group_size, made)
    if generated is not None:
        metrics |= generated_metrics(votes, outcomes, generated, group_size)
    return metrics


def generated_metrics(
    votes: Sequence[Outcome], outcomes: Sequence[Outcome], generated: Sequence[int], group_size: int
) -> dict[str, float]:
    """How many tests the policy has written, and how many of them are right, as far as is known.

    - exec/generated_tests: mean over groups of their number.
    - exec/generated_tests_right: the share that a program which passes the problem's own tests
      passes as well, mean over such programs of a group, then over groups that have one and a
      generated test; 0 where there is none.
    """
    right = []
    for start in range(0, len(votes), group_size):
        count = generated[start]
        passing = [r for r in range(start, start + group_size) if outcomes[r].passed]
        if count and passing:
            passed = [v is Verdict.PASSED for r in passing for v in votes[r].results[-count:]]
            right.append(sum(passed) / (count * len(passing)))
    return {
        "exec/generated_tests": _mean(generated[::group_size]),
        "exec/generated_tests_right": _mean(right),
    }


def vote_metrics(
    votes: Sequence[Outcome], outcomes: Sequence[Outcome], group_size: int, made: bool
) -> dict[str, float]:
    """What the programs of a group say together, means over groups; see `rewards.consensus`.

    - exec/unique_behaviours: classes of equal programs, of those that vote.
    - exec/vote_entropy: -sum p ln p over these classes, nats.
    - exec/label_accuracy: the share of the largest class that passes all tests, so that its answers
      are the right label; of several largest ones their mean, and 0 without a vote.
    """
    groups = behaviours(votes, group_size, made)
    return {
        "exec/unique_behaviours": _mean([len(group) for group in groups]),
        "exec/vote_entropy": _mean([vote_entropy(group) for group in groups]),
        "exec/label_accuracy": _label_accuracy(groups, outcomes),
    }


def teacher_metrics(
    votes: Sequence[Outcome] | None,
    outcomes: Sequence[Outcome],
    group_size: int,
    made: bool = False,
) -> dict[str, float]:
    """exec/teacher_label_accuracy: of a teacher's samples, what exec/label_accuracy is of others.

    `votes` are their outcomes on the inputs of votes, None where these are the tests. Where the
    answers to some input are unknown there is no such metric.
    """
    votes = outcomes if votes is None else votes
    if not all(answers_known(outcome) for outcome in votes):
        return {}
    groups = behaviours(votes, group_size, made)
    return {"exec/teacher_label_accuracy": _label_accuracy(groups, outcomes)}


def _label_accuracy(
    groups: Sequence[Sequence[Sequence[int]]], outcomes: Sequence[Outcome]
) -> float:
    """The share of the largest classes' programs that pass all tests, a mean over groups."""
    right = []
    for group in groups:
        most = max(map(len, group), default=0)
        largest = [rows for rows in group if len(rows) == most]
        right.append(_mean([outcomes[row].passed for rows in largest for row in rows]))
    return _mean(right)
