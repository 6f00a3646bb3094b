"""Metrics against hand-worked values."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from rlif_jax.batch import TokenStats
from rlif_jax.errors import UserError
from rlif_jax.metrics import (
    REASONING_MARKERS,
    count_reasoning_markers,
    execution_metrics,
    rank_biserial,
    repetition_ratio,
    reward_metrics,
    rollout_metrics,
    teacher_metrics,
)
from rlif_jax.problem import Outcome, Verdict

# Two rows of lengths 2 and 3; the value behind the mask is poison.
MASK = np.array([[1, 1, 0], [1, 1, 1]], bool)
BAD = np.nan


def stats() -> TokenStats:
    return TokenStats(
        logprob=jnp.array([[-1.0, -3.0, BAD], [-0.5, -0.25, -0.75]]),
        entropy=jnp.array([[1.0, 2.0, BAD], [0.0, 3.0, 6.0]]),
        self_certainty=jnp.array([[10.0, 12.0, BAD], [8.0, 8.0, 11.0]]),
        top1=jnp.array([[0.75, 0.5, BAD], [1.0, 0.5, 0.5]]),
        top2=jnp.array([[0.25, 0.5, BAD], [0.0, 0.25, 0.25]]),
    )


def test_rollout_metrics_are_means_over_rows_of_row_means():
    metrics = rollout_metrics(
        stats(),
        MASK,
        np.array([False, True]),
        ["a b c d e", "so wait", "a b c d a", "a b c d"],
        max_new_tokens=4,
        group_size=2,
    )
    assert metrics == pytest.approx(
        {
            "rollout/response_length": 2.5,
            "rollout/truncated_fraction": 0.5,
            "rollout/action_reward": (-4.0 - 1.5) / (2 * 4),
            "rollout/reasoning_tokens": 0.5,
            "rollout/repetition_ratio": 0.0,
            "rollout/distinct_ratio": (1 + 2 / 3) / 2,
            "stats/trajectory_entropy": (2.0 + 0.5) / 2,
            "stats/token_entropy": (1.5 + 3.0) / 2,
            "stats/self_certainty": (11.0 + 9.0) / 2,
            "stats/probability_disparity": (0.25 + 0.5) / 2,
        }
    )


def test_drift_is_over_tokens_and_ignores_the_mask():
    sampler = stats().replace(
        logprob=np.array([[-1.5, -3.0, 7.0], [-0.5, -0.25, -0.5]]),
        entropy=np.array([[1.0, 2.5, 7.0], [0.0, 3.0, 5.0]]),
        self_certainty=np.array([[10.0, 12.0, 7.0], [8.0, 8.5, 11.5]]),
        top1=np.array([[0.75, 0.5, 7.0], [0.75, 0.5, 0.5]]),
        top2=np.array([[0.25, 0.25, 7.0], [0.0, 0.25, 0.25]]),
    )
    metrics = rollout_metrics(
        stats(), MASK, np.zeros(2, bool), max_new_tokens=3, sampler_stats=sampler
    )
    drift = {name: value for name, value in metrics.items() if name.startswith("drift/")}
    assert drift == pytest.approx(
        {
            "drift/sampler_logprob": (0.5 + 0.25) / 5,
            "drift/sampler_logprob_max": 0.5,
            "drift/sampler_entropy": (0.5 + 1.0) / 5,
            "drift/sampler_self_certainty": (0.5 + 0.5) / 5,
            "drift/sampler_probability_disparity": (0.25 + 0.25) / 5,
        }
    )
    assert "rollout/reasoning_tokens" not in metrics


def test_there_is_no_drift_without_a_second_opinion():
    metrics = rollout_metrics(stats(), MASK, np.zeros(2, bool), max_new_tokens=3)
    assert not any(name.startswith("drift/") for name in metrics)


def test_a_row_without_tokens_is_left_out_of_the_certainty_means():
    mask = np.array([[0, 0, 0], [1, 1, 1]], bool)
    metrics = rollout_metrics(stats(), mask, np.zeros(2, bool), max_new_tokens=3)
    assert metrics["stats/token_entropy"] == pytest.approx(3.0)
    assert metrics["rollout/response_length"] == pytest.approx(1.5)


@pytest.mark.parametrize("rows", [0, 2])
def test_nothing_sampled_gives_finite_zeros(rows):
    empty = np.full((rows, 3), BAD)
    metrics = rollout_metrics(
        TokenStats(empty, empty, empty, empty, empty),
        np.zeros((rows, 3), bool),
        np.zeros(rows, bool),
        [""] * rows,
        max_new_tokens=3,
        sampler_stats=TokenStats(empty, empty, empty, empty, empty),
    )
    assert len(metrics) == 15
    assert set(metrics.values()) == {0.0}


def test_a_nan_among_the_tokens_is_not_hidden():
    broken = stats().replace(entropy=jnp.array([[BAD, 2.0, 0.0], [0.0, 3.0, 6.0]]))
    metrics = rollout_metrics(broken, MASK, np.zeros(2, bool), max_new_tokens=3)
    assert math.isnan(metrics["stats/token_entropy"])


def test_repetition_ratio_counts_repeated_word_ngrams():
    assert repetition_ratio("a b c d a b c d") == pytest.approx(
        1 - 4 / 5
    )  # abcd bcda cdab dabc abcd
    assert repetition_ratio("x " * 103) == pytest.approx(1 - 1 / 100)
    assert repetition_ratio("a b c d e") == 0.0
    assert repetition_ratio("one two") == 0.0
    assert repetition_ratio("a b a b", n=2) == pytest.approx(1 - 2 / 3)


def test_reasoning_markers_are_whole_words_of_any_case():
    text = "Wait, let me check: LET\u2019S see. So x = sort(button)  # sofa, await"
    assert count_reasoning_markers(text) == 5  # wait, let me, check, let's, so
    assert all(count_reasoning_markers(f"({word})") == 1 for word in REASONING_MARKERS)


def test_reward_metrics_of_two_groups():
    reward = jnp.array([0.0, 2.0, 1.0, 1.0])
    metrics = reward_metrics(reward, {"random": np.array([1.0, 1.0, 0.0, 1.0])}, group_size=2)
    assert metrics == pytest.approx(
        {
            "reward/mean": 1.0,
            "reward/std": math.sqrt(2 / 3),
            "reward/group_std": math.sqrt(2) / 2,
            "reward/zero_std_groups": 0.5,
            "reward/random": 0.75,
        }
    )


@pytest.mark.parametrize("size", [1e-3, 0.7, 12.3456, 1e4])
def test_rounding_noise_counts_as_a_group_without_spread(size):
    equal = np.full(4, size, np.float32)
    noisy = np.nextafter(equal, np.float32([np.inf, 0, np.inf, 0]))
    real = equal * np.float32([1, 1, 1, 1.0001])
    shares = [reward_metrics(x, {}, 4)["reward/zero_std_groups"] for x in (equal, noisy, real)]
    assert shares == [1.0, 1.0, 0.0]
    assert reward_metrics(equal, {}, 4)["reward/group_std"] == 0.0
    assert reward_metrics(noisy, {}, 4, std_floor=0.0)["reward/zero_std_groups"] == 0.0


def test_groups_of_one_and_no_rows_have_no_spread():
    assert reward_metrics([3.0], {}, group_size=1)["reward/std"] == 0.0
    assert reward_metrics([3.0, 5.0], {}, group_size=1)["reward/group_std"] == 0.0
    assert set(reward_metrics([], {"constant": []}, 4).values()) == {0.0}


@pytest.mark.parametrize(
    ("values", "positive", "want"),
    [
        ([1, 2, 3], [0, 1, 1], 1.0),
        ([1, 2, 3], [1, 0, 0], -1.0),
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.5),  # of four pairs one is the wrong way round
        ([1, 1, 1], [0, 1, 0], 0.0),
        ([1, 1, 2], [0, 1, 1], 0.5),  # a tie counts half
        ([1, 2], [1, 1], 0.0),
        ([], [], 0.0),
    ],
)
def test_rank_biserial_by_hand(values, positive, want):
    assert rank_biserial(values, positive) == pytest.approx(want)


def test_votes_of_two_groups_by_hand():
    """a a b -, of which a passes; c d, of which d passes, and two that did not answer."""
    passed, wrong = Verdict.PASSED, Verdict.WRONG_ANSWER

    def gave(answer: str | None, ok: bool = False) -> Outcome:
        verdict = passed if ok else wrong
        return Outcome(verdict, (verdict,), 1, 0.1, answers=(answer,))

    none = Outcome(Verdict.NO_CODE, (), 1, 0.0)
    first = [gave("a", True), gave("a", True), gave("b"), none]
    second = [gave("c"), gave("d", True), gave(None), gave(None)]
    metrics = execution_metrics([*first, *second], [3, 3, 1, 0, 1, 3, 0, 0], 4)
    entropies = -2 / 3 * np.log(2 / 3) - 1 / 3 * np.log(1 / 3), np.log(2)
    assert metrics["exec/unique_behaviours"] == 2
    assert metrics["exec/vote_entropy"] == pytest.approx(np.mean(entropies))
    assert metrics["exec/label_accuracy"] == (1 + 0.5) / 2
    assert metrics["exec/reward_rank_biserial"] == 1.0
    assert "exec/reward_accuracy" not in metrics
    voted = execution_metrics([*first, *second], np.float32([1, 1, 0, 0, 1, 0, 0, 0]), 4)
    assert voted["exec/reward_accuracy"] == 6 / 8  # c has a vote and fails, d passes without one
    nobody = execution_metrics([none] * 4, [0] * 4, 4)
    names = ("unique_behaviours", "vote_entropy", "label_accuracy")
    assert [nobody[f"exec/{name}"] for name in names] == [0, 0, 0]


def test_the_largest_class_of_other_inputs_is_held_against_the_tests():
    """All three of a class answer alike there, and two of them pass."""
    passed, wrong = Verdict.PASSED, Verdict.WRONG_ANSWER
    tests = [Outcome(v, (v,), 1, 0.1) for v in (passed, passed, wrong, passed)]
    votes = [Outcome(wrong, (wrong,), 1, 0.1, answers=(a,)) for a in "aaab"]
    assert "exec/label_accuracy" not in execution_metrics(tests, [0] * 4, 4)
    metrics = execution_metrics(tests, [0] * 4, 4, votes)
    assert metrics["exec/label_accuracy"] == pytest.approx(2 / 3)
    assert metrics["exec/unique_behaviours"] == 2 and metrics["exec/pass_rate"] == 0.75


def test_the_label_of_a_teacher_by_hand():
    """a a b, of which an a and the b pass; c d, of which d passes; and inputs of its own."""
    passed, wrong = Verdict.PASSED, Verdict.WRONG_ANSWER
    outcomes = [
        Outcome(v, (v,), 1, 0.1, answers=(answer,))
        for v, answer in zip((passed, wrong, passed, wrong, passed, wrong), "aabcde", strict=True)
    ]
    assert teacher_metrics(None, outcomes, 3) == {
        "exec/teacher_label_accuracy": pytest.approx((1 / 2 + 1 / 3) / 2)
    }
    votes = [Outcome(wrong, (wrong,), 1, 0.1, answers=(a,)) for a in "abbbbb"]
    assert teacher_metrics(votes, outcomes, 3) == {
        "exec/teacher_label_accuracy": pytest.approx((1 / 2 + 1 / 3) / 2)
    }
    assert teacher_metrics(votes, outcomes, 6)["exec/teacher_label_accuracy"] == 2 / 5
    stopped = Outcome(wrong, (wrong,), 2, 0.1, answers=("a",))
    assert teacher_metrics(None, [stopped] * 3, 3) == {}


def test_votes_are_not_counted_where_the_judge_has_stopped():
    """After a first failure the answers to other inputs are unknown."""
    passed, wrong = Verdict.PASSED, Verdict.WRONG_ANSWER
    stopped = Outcome(wrong, (wrong,), 2, 0.1, answers=("a",))
    whole = Outcome(passed, (passed,) * 2, 2, 0.1, answers=("a", "b"))
    assert "exec/vote_entropy" not in execution_metrics([whole, stopped], [1, 0], 2)
    assert "exec/vote_entropy" in execution_metrics([whole, whole], [1, 0], 2)


def test_a_term_may_not_take_the_name_of_a_metric():
    with pytest.raises(UserError, match="my_mean"):
        reward_metrics([0.0, 1.0], {"mean": [0.0, 1.0]}, 2)


def test_execution_metrics():
    passed, wrong = Verdict.PASSED, Verdict.WRONG_ANSWER
    outcomes = [
        Outcome(passed, (passed,) * 4, 4, 0.1),
        Outcome(wrong, (passed, wrong), 4, 0.1),
        Outcome(Verdict.NO_CODE, (), 4, 0.0),
        Outcome(wrong, (wrong,), 2, 0.1),
    ]
    metrics = execution_metrics(outcomes, np.arange(len(outcomes)), 1)
    assert metrics["exec/pass_rate"] == 0.25
    assert metrics["exec/tests_fraction"] == pytest.approx((1 + 0.25) / 4)
    assert metrics["exec/wrong_answer"] == 0.5
    assert metrics["exec/no_code"] == 0.25
    assert metrics["exec/time_limit"] == 0.0
    shares = [metrics[f"exec/{v.value}"] for v in Verdict]
    assert sum(shares) == pytest.approx(1.0)
    assert set(execution_metrics([], [], 1).values()) == {0.0}
