"""Statistics over seeds, by hand: with two degrees of freedom Student's t has a closed form."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from rlif_jax.reporting.seeds import (
    SeedMean,
    change,
    equivalence_p,
    holm,
    seed_mean,
    sentence,
)

VALUES = [1.0, 2.0, 4.0]  # mean 7/3, variance 7/3
T_975 = 4.302652729911275  # of two degrees of freedom: 0.95 * sqrt(2 / (1 - 0.95**2))


def two_sided(t: float) -> float:
    return 1 - t / math.sqrt(t * t + 2)


def test_the_mean_of_three_seeds():
    got = seed_mean(VALUES)
    half = T_975 * math.sqrt(7 / 3 / 3)
    assert (got.value, got.n) == (pytest.approx(7 / 3), 3)
    assert got.std == pytest.approx(math.sqrt(7 / 3))
    assert (got.low, got.high) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half))
    assert got.text(10) == "23.3 (-14.6 to 61.3)"


def test_one_seed_has_no_interval():
    assert seed_mean([0.25]) == SeedMean(0.25, 1)
    assert seed_mean([0.25]).text(100) == "25.0"
    with pytest.raises(ValueError, match="no seed"):
        seed_mean([])


def test_a_paired_change():
    got = change([5.0, 5.0, 5.0], [6.0, 7.0, 9.0])
    assert got.difference == seed_mean(VALUES)
    assert got.p == pytest.approx(two_sided(math.sqrt(7)))
    assert got.effect == pytest.approx(math.sqrt(7 / 3))
    assert got.p == pytest.approx(ttest_rel([6, 7, 9], [5, 5, 5]).pvalue)


@pytest.mark.parametrize("after", [[1.0, 2.0], [2.0, 3.0], [1.1, 2.1]])
def test_pairs_that_all_differ_alike_test_nothing(after):
    """Accuracies of 36 problems lie on a grid: two seeds often differ alike by chance."""
    got = change([1.0, 2.0], after)
    assert (got.p, got.effect) == (None, None)
    said = sentence(got, "it", None, equivalence_p(got.difference, 2.0), 2.0)
    points = 100 * (after[0] - 1)
    assert said == (
        f"{points:.1f} points against it with each of 2 seeds: equal changes allow no claim"
    )


def test_one_pair_tests_nothing():
    got = change([1.0], [2.0])
    assert (got.difference.value, got.p, got.effect) == (1.0, None, None)
    assert equivalence_p(seed_mean([0.0]), 1.0) is None


def test_equivalence_by_two_one_sided_tests():
    """The bound that is nearer decides: (10 - 7/3) / sqrt(7/9) from the mean."""
    t = (10 - 7 / 3) / math.sqrt(7 / 9)
    assert equivalence_p(seed_mean(VALUES), 10.0) == pytest.approx(two_sided(t) / 2)
    assert equivalence_p(seed_mean(VALUES), 2.0) > 0.5
    assert equivalence_p(seed_mean([1.0, 1.0]), 2.0) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_values_are_larger_and_in_the_same_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert sorted(adjusted) == [adjusted[i] for i in order]


@pytest.mark.parametrize(
    ("after", "adjusted", "within", "said"),
    [
        ([0.30, 0.31, 0.32], 0.01, None, "gains 21.0 (18.5 to 23.5) points against it"),
        ([0.05, 0.06, 0.07], 0.04, None, "loses 4.0 (1.5 to 6.5) points against it"),
        ([0.30, 0.31, 0.32], 0.06, None, "undecided against it: 21.0 (18.5 to 23.5) points"),
        ([0.10, 0.11, 0.09], 0.9, 0.01, "within 2 points of it: 0.0 (-2.5 to 2.5)"),
        ([0.10, 0.11, 0.09], 0.9, 0.2, "undecided against it: 0.0 (-2.5 to 2.5) points"),
    ],
)
def test_a_sentence_claims_what_an_interval_supports(after, adjusted, within, said):
    assert sentence(change([0.1] * 3, after), "it", adjusted, within, 0.02) == said


def test_one_seed_supports_no_claim():
    said = sentence(change([0.1], [0.5]), "random", None, None, 0.02)
    assert said == "40.0 points against random; one seed allows no claim"
