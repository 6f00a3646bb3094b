"""Two evaluations on the same problems: difference, interval, p-value, refusals."""

import copy
import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from rlif_jax.errors import UserError
from rlif_jax.evaluation.scores import Estimate, PerSample, compare
from rlif_jax.evaluation.scores.paired import FLIPS, sign_flip_p_values

PLATFORMS = ("leetcode", "atcoder", None)


def result(correct, ids=None, length=10):
    """A result file with these samples, as JSON gives it."""
    correct = np.asarray(correct, bool)
    ids = ids or [f"p{row}" for row in range(len(correct))]
    rows = [
        {
            "id": each,
            "platform": PLATFORMS[row % 3],
            "difficulty": "easy",
            "correct": samples.tolist(),
            "length": [length] * len(samples),
            "truncated": [False] * len(samples),
        }
        for row, (each, samples) in enumerate(zip(ids, correct, strict=True))
    ]
    return json.loads(json.dumps({"arguments": {}, "problems": rows, "scores": {}}))


def draws(seed, problems=60, n=4, rate=0.4):
    return np.random.default_rng(seed).random((problems, n)) < rate


def test_a_file_with_itself_has_no_difference():
    comparison = compare(result(draws(0)), result(draws(0)))
    parts = [comparison.overall, *comparison.groups["platform"].values()]
    assert [part.problems for part in parts] == [60, 20, 20]
    for part in parts:
        names = ["avg@n", "pass@1", "pass@2", "pass@4", "length", "truncated"]
        assert list(part.statistics) == names
        for each in part.statistics.values():
            assert each.difference == Estimate(0.0, 0.0, 0.0)
            assert each.p_value == 1.0


def test_differences_by_hand():
    first = result([[1, 0], [0, 0], [1, 1], [0, 0]], length=10)
    second = result([[1, 1], [1, 0], [1, 1], [0, 1]], length=16)
    comparison = compare(first, second)
    average = comparison.overall.statistics["avg@n"]
    assert (average.first, average.second) == (3 / 8, 6 / 8)
    assert average.difference.value == 3 / 8
    assert average.p_value == 2 / 8  # three problems differ, all alike: of 8 patterns, two
    passed = comparison.overall.statistics["pass@2"]
    assert (passed.first, passed.second, passed.p_value) == (0.5, 1.0, 2 / 4)
    assert comparison.overall.statistics["length"].difference == Estimate(6.0, 6.0, 6.0)
    assert comparison.groups["platform"]["leetcode"].problems == 2
    backwards = compare(second, first).overall.statistics["avg@n"]
    assert (backwards.difference.value, backwards.p_value) == (-3 / 8, 2 / 8)


def test_problems_are_matched_by_their_ids():
    correct, ids = draws(1, 9), list("abcdefghi")
    first, second = result(correct, ids), result(correct[::-1], ids[::-1])
    assert compare(first, second).overall.statistics["avg@n"].difference == Estimate(0, 0, 0)


def test_the_interval_is_paired():
    """Problems differ in difficulty far more than the two results on each do."""
    rng = np.random.default_rng(3)
    rate = rng.beta(0.3, 0.3, (200, 1))
    a, b = (rng.random((200, 8)) < np.clip(rate + gain, 0, 1) for gain in (0, 0.05))
    difference = compare(result(a), result(b)).overall.statistics["avg@n"].difference
    each = b.mean(axis=1) - a.mean(axis=1)
    want = stats.t.interval(0.95, 199, each.mean(), stats.sem(each))
    assert (difference.low, difference.high) == pytest.approx(want, abs=0.002)


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(0)
    few, many = rng.integers(-3, 5, (11, 2)) / 4, rng.integers(-3, 5, (40, 2)) / 4
    of_mean = lambda x, axis: x.mean(axis=axis)
    options = {"permutation_type": "samples", "vectorized": True}
    for values, resamples, tolerance in ((few, np.inf, 1e-12), (many, 20_000, 0.02)):
        want = [
            stats.permutation_test(
                (column,), of_mean, n_resamples=resamples, rng=np.random.default_rng(1), **options
            ).pvalue
            for column in values.T
        ]
        assert sign_flip_p_values(values) == pytest.approx(want, abs=tolerance)
    assert np.all((few != 0).any(axis=1).sum() <= 13)  # so that all patterns were tried


def test_a_sure_difference_has_the_smallest_p_value():
    p_values = sign_flip_p_values(np.ones((400, 1)))
    assert p_values == pytest.approx(1 / (FLIPS + 1))


def test_p_values_of_no_difference_are_below_5_of_100_in_at_most_5_of_100():
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 5, (30, 300)) for _ in range(2)]
    p_values = sign_flip_p_values((values[1] - values[0]) / 4)
    assert 0.02 < (p_values < 0.05).mean() < 0.08
    assert 0.4 < (p_values < 0.5).mean() < 0.6


def test_different_numbers_of_samples_share_the_smaller_ks():
    half = np.arange(4)[None] < np.full((6, 1), 2)
    comparison = compare(result(half), result(np.concatenate([half, half], axis=1)))
    assert comparison.n == (4, 8)
    statistics = comparison.overall.statistics
    assert [name for name in statistics if "@" in name] == ["avg@n", "pass@1", "pass@2", "pass@4"]
    # pass@1 of 2 in 4 and of 4 in 8 are 0.5 but for rounding, which is no difference.
    for name in ("avg@n", "pass@1"):
        assert statistics[name].difference == Estimate(0.0, 0.0, 0.0)
        assert statistics[name].p_value == 1.0
    assert statistics["pass@2"].difference.value == pytest.approx(11 / 14 - 5 / 6)
    assert "avg@(4, 8)" in "\n".join(comparison.lines())
    with pytest.raises(UserError, match=r"pass@5 .* 4 samples"):
        compare(result(half), result(half), ks=(5,))


def test_other_problems_are_refused_unless_the_common_ones_are_asked_for():
    first, second = result(draws(0, 5), list("abcde")), result(draws(0, 4), list("bcdz"))
    words = r"old.json and new.json .* 3 are in both, 2 only in old.json \('a', ...\) and 1 only "
    with pytest.raises(UserError, match=words + r"in new.json \('z'\).* 3 common"):
        compare(first, second, names=("old.json", "new.json"))
    comparison = compare(first, second, common=True)
    assert (comparison.overall.problems, comparison.left_out) == (3, (2, 1))
    assert "left out: 2 problems only in A, 1 only in B" in comparison.lines()
    with pytest.raises(UserError, match=r"0 are in both.*two evaluations of one problem set"):
        compare(first, result(draws(0, 2), ["x", "y"]), common=True)


def test_the_table_and_json():
    comparison = compare(result(draws(0)), result(draws(1)), names=("old.json", "new.json"))
    lines = comparison.lines()
    assert lines[:2] == ["A: old.json", "B: new.json"]
    average = comparison.overall.statistics["avg@n"]
    assert (
        lines[3].split()
        == (
            f"all avg@4 60 {average.first:.3f} {average.second:.3f} "
            f"{average.difference.text(3, signed=True)} {average.p_value:.4f}"
        ).split()
    )
    labels = [line.split()[0] for line in lines[3:]]
    per_part = 5  # pass@1 is avg@n
    assert labels == (
        ["all"] * per_part + ["platform"] + ["atcoder"] * per_part + ["leetcode"] * per_part
        + ["difficulty"] + ["easy"] * per_part
    )  # fmt: skip
    data = json.loads(json.dumps(asdict(comparison), allow_nan=False))
    assert data["overall"]["statistics"]["avg@n"]["p_value"] == average.p_value


def test_the_longest_length():
    data = broken(1, "length", [(1 << 31) - 1, 0, 0, 0])
    assert PerSample.from_json(data, "a").length[1].tolist() == [(1 << 31) - 1, 0, 0, 0]


def broken(row, key, value):
    data = result(draws(0, 3))
    data["problems"][row][key] = value
    return data


BAD_FILES = {
    "not the result of an evaluation": [{"metrics": {}}, [], None, {"problems": []}],
    "problem 0 is 7 and not an object": [{"problems": [7]}],
    r"problem 1 has the id 3,": [broken(1, "id", 3)],
    r"problem 2 \('p2'\) has platform \['x'\]": [broken(2, "platform", ["x"])],
    r"problem 1 \('p1'\) has correct \[1, 0, 1, 0\], not a list of true": [
        broken(1, "correct", [1, 0, 1, 0])
    ],
    r"problem 1 \('p1'\) has length '9', not a list of whole": [broken(1, "length", "9")],
    r"problem 1 \('p1'\) has length \[-?\d+, 1, 1, 1\], not a list of whole numbers from 0 to": [
        broken(1, "length", [length, 1, 1, 1]) for length in (10**22, 1 << 31, -1)
    ],
    r"problem 1 \('p1'\) has length \[True": [broken(1, "length", [True] * 4)],
    r"problem 2 \('p2'\) has truncated None": [broken(2, "truncated", None)],
    r"problem 2 \('p2'\) has 2 entries in correct, and the first problem has 4": [
        broken(2, "correct", [True, False])
    ],
    r"problem 0 \('p0'\) has 0 entries in correct": [broken(0, "correct", [])],
    "has the problem 'p0' more than once": [broken(2, "id", "p0")],
}


@pytest.mark.parametrize(
    ("words", "data"), [(words, data) for words, all_ in BAD_FILES.items() for data in all_]
)
def test_files_of_another_form_are_refused(words, data):
    good = result(draws(0, 3))
    for pair in ((copy.deepcopy(good), data), (data, copy.deepcopy(good))):
        names = tuple("bad.json" if each is data else "good.json" for each in pair)
        with pytest.raises(UserError, match="bad.json.*" + words):
            compare(*pair, names=names)
