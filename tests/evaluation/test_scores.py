"""Scores against closed forms, and what their intervals hold."""

import itertools
import json
import math
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rlif_jax.errors import UserError
from rlif_jax.evaluation.scores import Estimate, Scores, eval_metrics, pass_at_k, summarise
from rlif_jax.evaluation.scores.bootstrap import mean_estimates

CORRECT = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
LENGTH = np.array([[10, 20, 30, 40], [5, 5, 5, 5], [8, 8, 8, 8], [100, 100, 100, 100]])
TRUNCATED = LENGTH == 100
GROUPS = {"platform": ["leetcode", "atcoder", "leetcode", ""], "difficulty": ["", "", "", ""]}


def scores_of(correct, **options):
    """Scores of results whose lengths do not matter."""
    correct = np.asarray(correct)
    return summarise(correct, np.ones(correct.shape), np.zeros(correct.shape), **options)


def test_pass_at_k_equals_the_closed_form():
    cases = [(n, c, k) for n in range(1, 21) for c in range(n + 1) for k in range(1, n + 1)]
    assert len(cases) == sum((n + 1) * n for n in range(1, 21))
    for n, c, k in cases:
        exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert abs(Fraction(pass_at_k(n, c, k)) - exact) < Fraction(1, 10**14), (n, c, k)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k_equals_drawing_every_subset(case):
    n, c, k = case
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_pass_at_k_of_many_samples_stays_exact():
    exact = 1 - math.comb(1990, 500) / math.comb(2000, 500)
    assert pass_at_k(2000, 10, 500) == pytest.approx(exact, rel=1e-12)
    assert 0.0 == pass_at_k(2000, 0, 2000) < pass_at_k(2000, 1, 2000) == 1.0


@pytest.mark.parametrize("k", [0, 5])
def test_k_outside_the_samples_is_refused(k):
    with pytest.raises(UserError, match=rf"pass@{k} .* 4 samples"):
        scores_of(np.ones((2, 4), bool), ks=(k,))


def test_scores_by_hand():
    scores = summarise(CORRECT, LENGTH, TRUNCATED, GROUPS)
    values = {name: each.value for name, each in scores.overall.statistics.items()}
    assert values == pytest.approx(
        {
            "avg@4": 7 / 16,
            "pass@1": 7 / 16,
            "pass@2": (5 / 6 + 0 + 1 + 1 / 2) / 4,
            "pass@4": 3 / 4,
            "length": (25 + 5 + 8 + 100) / 4,
            "truncated": 1 / 4,
        }
    )
    assert (scores.n, scores.overall.problems) == (4, 4)
    # A problem without a platform is in none; a grouping without a value is not there.
    assert list(scores.groups) == ["platform"]
    assert {name: part.problems for name, part in scores.groups["platform"].items()} == {
        "atcoder": 1,
        "leetcode": 2,
    }
    assert scores.groups["platform"]["leetcode"].statistics["avg@4"].value == pytest.approx(0.75)


def test_default_ks_are_powers_of_two_and_n():
    names = scores_of(np.ones((2, 6), bool)).overall.statistics
    assert [name for name in names if "@" in name] == [
        "avg@6", "pass@1", "pass@2", "pass@4", "pass@6",
    ]  # fmt: skip
    names = scores_of(np.ones((2, 6), bool), ks=(5, 1, 5)).overall.statistics
    assert [name for name in names if "@" in name] == ["avg@6", "pass@1", "pass@5"]


def test_difficulties_are_in_their_order():
    difficulty = ["hard", "easy", "unknown", "medium", "easy"]
    scores = scores_of(np.ones((5, 1)), groups={"difficulty": difficulty})
    assert list(scores.groups["difficulty"]) == ["easy", "medium", "hard", "unknown"]


def test_a_group_has_the_scores_of_its_problems_alone():
    rng = np.random.default_rng(1)
    correct, length = rng.random((90, 3)) < 0.4, rng.integers(1, 50, (90, 3))
    platform = np.array(["leetcode", "atcoder", "codeforces"])[rng.integers(0, 3, 90)]
    scores = summarise(correct, length, ~correct, {"platform": platform.tolist()}, seed=5)
    for name, part in scores.groups["platform"].items():
        its = platform == name
        assert part == summarise(correct[its], length[its], ~correct[its], seed=5).overall


def test_the_seed_fixes_the_intervals():
    assert scores_of(CORRECT, seed=1) == scores_of(CORRECT, seed=1)
    assert scores_of(CORRECT, seed=1) != scores_of(CORRECT, seed=2)


@pytest.mark.parametrize("solved", [0, 1, 7, 20])
def test_the_interval_of_zeros_and_ones_is_that_of_jeffreys_prior(solved):
    estimate = scores_of(np.arange(20)[:, None] < solved).overall.statistics["avg@1"]
    low, high = stats.beta(solved + 0.5, 20 - solved + 0.5).ppf((0.025, 0.975))
    # It holds the score itself, also at the ends.
    want = (0.0 if solved == 0 else low, 1.0 if solved == 20 else high)
    assert (estimate.low, estimate.high) == pytest.approx(want, abs=0.008)


def test_the_interval_of_many_problems_is_the_normal_one():
    share = np.repeat([0, 1, 2, 3, 4], 60)  # 300 problems; correct samples of 4
    estimate = scores_of(np.arange(4)[None, :] < share[:, None]).overall.statistics["avg@4"]
    half = 1.96 * (share / 4).std() / math.sqrt(300)
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.003)


@pytest.mark.parametrize("problems", [8, 30, 200])
def test_the_interval_of_a_length_is_students(problems):
    length = stats.norm(100, 15).ppf((np.arange(problems) + 0.5) / problems)[:, None]
    no = np.zeros((problems, 1), bool)
    estimate = summarise(no, length, no).overall.statistics["length"]
    low, high = stats.t.interval(0.95, problems - 1, 100, stats.sem(length[:, 0]))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def coverage(problems, a, b, data_sets, n=4):
    """Share of data sets, with rates ~ Beta(a, b), whose intervals hold what is true."""
    rng = np.random.default_rng(0)
    fails = lambda k: math.prod((b + i) / (a + b + i) for i in range(k))  # E[(1 - rate)^k]
    truth = {"avg@4": a / (a + b), **{f"pass@{k}": 1 - fails(k) for k in (2, 4)}, "length": 50.0}
    held = dict.fromkeys(truth, 0)
    for seed in range(data_sets):
        correct = rng.random((problems, n)) < rng.beta(a, b, (problems, 1))
        length = rng.gamma(2.0, 25.0, (problems, 1)) * rng.uniform(0.5, 1.5, (problems, n))
        scores = summarise(correct, length, correct, ks=(2, 4), seed=seed, resamples=1000)
        for name, true in truth.items():
            estimate = scores.overall.statistics[name]
            held[name] += estimate.low <= true <= estimate.high
    return {name: count / data_sets for name, count in held.items()}


@pytest.mark.parametrize(("problems", "a", "b"), [(164, 0.4, 0.6), (300, 0.15, 0.85)])
def test_intervals_hold_the_truth_in_95_of_100_data_sets(problems, a, b):
    for name, share in coverage(problems, a, b, data_sets=600).items():
        assert 0.93 <= share <= 0.97, name


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.02, 0.98), (0.98, 0.02)])
def test_intervals_of_few_problems_and_of_scores_near_the_ends_still_hold(a, b):
    shares = coverage(30, a, b, data_sets=500)
    assert min(shares.values()) >= 0.9


def test_one_problem_tells_little():
    scores = summarise([[True, True]], [[7, 9]], [[False, False]])
    statistics = scores.overall.statistics
    assert statistics["length"] == Estimate(8.0, None, None)
    assert statistics["avg@2"].low < 0.2 and statistics["avg@2"].high == 1.0


def test_equal_lengths_have_an_interval_without_width():
    scores = summarise(CORRECT, np.full((4, 4), 61.3), TRUNCATED)
    assert scores.overall.statistics["length"] == Estimate(61.3, 61.3, 61.3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.randoms(use_true_random=False))
def test_an_interval_holds_its_score_and_stays_in_the_unit_interval(problems, n, random):
    correct = np.array([[random.random() < 0.5 for _ in range(n)] for _ in range(problems)])
    statistics = scores_of(correct, resamples=200).overall.statistics
    for name, each in statistics.items():
        if name != "length":
            assert 0 <= each.low <= each.value <= each.high <= 1
    passes = [each.value for name, each in statistics.items() if name.startswith("pass@")]
    assert passes == sorted(passes)
    assert passes[0] == pytest.approx(statistics[f"avg@{n}"].value)
    assert passes[-1] == correct.any(axis=1).mean()


def test_resamples_in_pieces_are_all_there(monkeypatch):
    values = np.random.default_rng(0).random((40, 2))
    whole = mean_estimates(values, [True, False], resamples=4001)
    monkeypatch.setattr("rlif_jax.evaluation.scores.bootstrap._CHUNK_ENTRIES", 42 * 100)
    for a, b in zip(whole, mean_estimates(values, [True, False], resamples=4001), strict=True):
        assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.01)  # other draws


def test_json_and_back():
    scores = summarise(CORRECT, LENGTH, TRUNCATED, GROUPS)
    text = json.dumps(asdict(scores), allow_nan=False)
    assert Scores.from_json(json.loads(text)) == scores


def test_the_table():
    scores = summarise(CORRECT, LENGTH, TRUNCATED, GROUPS, ks=(1, 4))
    lines = scores.lines()
    assert " ".join(lines[0].split()) == "problems avg@4 = pass@1 pass@4 length truncated"
    statistics = scores.overall.statistics
    assert lines[1].split() == " ".join(
        ["all 4"] + [statistics[name].text(3) for name in ("avg@4", "pass@4")]
        + [statistics["length"].text(1), statistics["truncated"].text(3)]
    ).split()  # fmt: skip
    assert [line.split()[0] for line in lines[2:]] == ["platform", "atcoder", "leetcode"]
    assert "  5.0  " in lines[3]  # the length of one problem, without an interval
    assert Estimate(-0.04, -0.12, 0.15).text(1, signed=True) == "+0.0 (-0.1 to +0.1)"
    assert Estimate(0.4117, 0.31, 0.5126).text(3) == "0.412 (0.310 to 0.513)"


def test_eval_metrics():
    scores = summarise(CORRECT, LENGTH, TRUNCATED, GROUPS, ks=(2,))
    average = scores.overall.statistics["avg@4"]
    assert eval_metrics("starter", scores) == {
        "eval/starter/avg@4": 7 / 16,
        "eval/starter/avg@4_low": average.low,
        "eval/starter/avg@4_high": average.high,
        "eval/starter/pass@2": scores.overall.statistics["pass@2"].value,
        "eval/starter/response_length": 34.5,
    }


def test_results_that_do_not_belong_together_are_refused():
    with pytest.raises(UserError, match=r"shape \(0, 4\)"):
        scores_of(np.ones((0, 4)))
    with pytest.raises(UserError, match=r"length \(4, 3\)"):
        summarise(CORRECT, LENGTH[:, :3], TRUNCATED)
    with pytest.raises(UserError, match=r"\{'platform': 3\}"):
        summarise(CORRECT, LENGTH, TRUNCATED, {"platform": ["a", "b", "c"]})
