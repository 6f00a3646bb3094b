"""Certainty analysis against hand-worked cases and SciPy's own U; what the figure shows."""

import dataclasses
import json

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rlif_jax.batch import TokenStats
from rlif_jax.errors import UserError
from rlif_jax.evaluation.certainty import INTRINSIC, analyse, figure, rewards_of
from rlif_jax.evaluation.certainty.calibration import CONFIDENCE, confidence_bins, quantile_bins
from rlif_jax.evaluation.certainty.separation import pair_wins
from rlif_jax.evaluation.scores import Estimate, summarise

# Three problems: mixed, all wrong, mixed with a tie of both classes.
CORRECT = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0]], bool)
REWARD = np.array([[0.9, 0.2, 0.4], [0.3, 0.7, 0.1], [0.5, 0.8, 0.5]])


def samples(problems, n=4, gap=1.0, seed=0):
    """Rewards N(gap, 1) of correct and N(0, 1) of incorrect samples around their problem's own."""
    rng = np.random.default_rng(seed)
    correct = rng.random((problems, n)) < rng.beta(1.0, 1.5, (problems, 1))
    around = rng.normal(size=(problems, 1)) * 0.7
    return gap * correct + around + rng.normal(size=(problems, n)), correct


def one(reward=REWARD, correct=CORRECT, name="probability_disparity", **options):
    return analyse({name: reward}, correct, **options).rewards[name]


def test_rewards_are_those_that_train():
    mask = np.array([[1, 1, 1], [1, 1, 0]], bool)
    values = jnp.array([[1.0, 2.0, 6.0], [4.0, 1.0, np.nan]])
    got = rewards_of(TokenStats(-values, values, 2 * values, values / 8, values / 16), mask)
    assert tuple(got) == INTRINSIC
    want = {
        "self_certainty": [6.0, 5.0],
        "token_entropy": [-3.0, -2.5],
        "trajectory_entropy": [-3.0, -2.5],
        "probability_disparity": [3 / 16, 2.5 / 16],
        "token_entropy_sum": [-9.0, -5.0],
        "trajectory_entropy_sum": [-9.0, -5.0],
    }
    for name, reward_B in got.items():
        np.testing.assert_allclose(reward_B, want[name], rtol=1e-6)
        assert reward_B.dtype == np.float32
    with pytest.raises(UserError, match="Unknown reward 'certain'"):
        rewards_of(TokenStats(values, values, values, values, values), mask, ["certain"])


def test_separation_by_hand():
    analysis = one()
    # Correct 0.9, 0.5, 0.8 win against incorrect 0.2, 0.4, 0.3, 0.7, 0.1, 0.5:
    wins = 6 + (4 + 0.5) + 6
    assert analysis.auroc.value == pytest.approx(wins / 18)
    assert analysis.rank_biserial.value == pytest.approx(2 * wins / 18 - 1)
    # Within the first problem 2 of 2, within the third 1.5 of 2; the second has one class.
    assert analysis.auroc_within.value == pytest.approx((1 + 0.75) / 2)
    assert analysis.rank_biserial_within.value == pytest.approx(0.75)
    assert analysis.correct_mean.value == pytest.approx((0.9 + 0.5 + 0.8) / 3)
    assert analysis.incorrect_mean.value == pytest.approx((0.2 + 0.4 + 0.3 + 0.7 + 0.1 + 0.5) / 6)


def test_the_sign_of_r_is_that_of_correct_minus_incorrect():
    assert one(CORRECT * 1.0).rank_biserial.value == 1.0
    assert one(~CORRECT * 1.0).rank_biserial.value == -1.0
    up, down = one(REWARD), one(-REWARD)
    assert down.rank_biserial.value == pytest.approx(-up.rank_biserial.value)
    assert down.rank_biserial.low == pytest.approx(-up.rank_biserial.high, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_auroc_is_the_u_of_mann_and_whitney(data):
    shape = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    size = shape[0] * shape[1]
    correct = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    reward = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))) / 2
    analysis = one(reward.reshape(shape), correct.reshape(shape), resamples=50)
    if correct.all() or not correct.any():
        assert analysis.auroc is None and analysis.rank_biserial is None
        return
    u = stats.mannwhitneyu(reward[correct], reward[~correct]).statistic
    assert analysis.auroc.value == pytest.approx(u / (correct.sum() * (~correct).sum()))
    if analysis.auroc.low is not None:
        assert 0 <= analysis.auroc.low <= analysis.auroc.value <= analysis.auroc.high <= 1 + 1e-6


def test_wins_are_counted_between_problems():
    wins = pair_wins(REWARD, CORRECT)
    np.testing.assert_array_equal(wins, [[2, 3, 1], [0, 0, 0], [4, 2 + 3, 0.5 + 1]])


def test_a_resample_weighs_problems_as_if_they_were_there_so_often(monkeypatch):
    reward, correct = samples(12, seed=3)
    often = np.array([0, 1, 2, 1, 3, 0, 1, 1, 2, 0, 1, 1])
    weight = np.r_[often, 0, 0].astype(np.float32)[None]
    rows = np.repeat(np.arange(12), often)
    whole, drawn = one(reward, correct), one(reward[rows], correct[rows])
    monkeypatch.setattr(
        "rlif_jax.evaluation.certainty.separation.resampled_weights", lambda *arguments: [weight]
    )
    got = one(reward, correct)
    for name in ("auroc", "correct_mean", "incorrect_mean"):
        ends = sorted(getattr(each, name).value for each in (whole, drawn))
        estimate = getattr(got, name)  # its only resample, and itself
        assert [estimate.low, estimate.high] == pytest.approx(ends, rel=1e-6)
        assert ends[0] < ends[1]


def test_intervals_hold_what_is_true_of_the_rewards():
    pooled = stats.norm.cdf(1 / np.sqrt(2 * (1 + 0.7**2)))  # pairs of different problems
    within = stats.norm.cdf(1 / np.sqrt(2))
    truth = {"auroc": pooled, "auroc_within": within, "correct_mean": 1, "incorrect_mean": 0}
    held = dict.fromkeys(truth, 0)
    for seed in range(200):
        analysis = one(*samples(100, seed=seed), name="x", resamples=1000)
        for name, true in truth.items():
            estimate = getattr(analysis, name)
            held[name] += estimate.low <= true <= estimate.high
    for name, count in held.items():
        assert 0.91 <= count / 200 <= 0.99, name


def test_the_most_certain_sample_by_hand():
    analysis = analyse({"r": REWARD, "tied": np.zeros((3, 3)), "wrong": -1.0 * CORRECT}, CORRECT)
    accuracy = {name: each.argmax_accuracy.value for name, each in analysis.rewards.items()}
    # 0.9 and 0.8 are correct; of equal ones any may be drawn.
    assert accuracy == pytest.approx({"r": 2 / 3, "tied": 1 / 3, "wrong": 0.0})
    assert analysis.rewards["r"].argmax_gain.value == pytest.approx(2 / 3 - 1 / 3)
    assert analysis.rewards["tied"].argmax_gain == Estimate(0.0, 0.0, 0.0)
    assert (analysis.random.value, analysis.oracle.value) == pytest.approx((1 / 3, 2 / 3))
    assert (analysis.problems, analysis.n, analysis.mixed_problems) == (3, 3, 2)


def test_random_and_oracle_are_the_scores_of_the_evaluation():
    reward, correct = samples(40)
    analysis = analyse({"r": reward}, correct)
    scores = summarise(correct, reward, correct).overall.statistics
    assert analysis.random.value == pytest.approx(scores["avg@4"].value)
    assert dataclasses.astuple(analysis.oracle) == pytest.approx(
        dataclasses.astuple(scores["pass@4"])
    )


def test_reliability_bins_are_tenths_by_rank():
    reward = np.arange(40.0)[::-1]
    correct = reward >= 30
    bins = quantile_bins(reward, correct)
    assert [b.samples for b in bins] == [4] * 10
    assert [b.accuracy for b in bins] == [0] * 7 + [0.5, 1, 1]
    assert (bins[0].low, bins[0].high, bins[0].mean) == (0, 3, 1.5)
    # Equal rewards stay together: half of the samples are in one bin, around their middle rank.
    bins = quantile_bins(np.r_[np.zeros(20), np.arange(1, 21)], np.r_[np.ones(20), np.zeros(20)])
    assert [b.samples for b in bins] == [20, 4, 4, 4, 4, 4]
    assert (bins[0].low, bins[0].high, bins[0].accuracy) == (0, 0, 1)


def test_calibration_error_by_hand():
    confidence = np.array([[0.05, 0.05, 0.35, 0.3], [1.0, 0.95, 0.95, 0.9]])
    correct = np.array([[0, 1, 0, 0], [1, 1, 1, 0]], bool)
    bins = confidence_bins(confidence.ravel(), correct.ravel())
    assert [(b.samples, b.accuracy) for b in bins] == [(2, 0.5), (2, 0.0), (4, 0.75)]
    assert [b.mean for b in bins] == pytest.approx([0.05, 0.325, 0.95])
    want = (2 * 0.45 + 2 * 0.325 + 4 * 0.2) / 8
    assert one(confidence, correct).calibration_error == pytest.approx(want)
    for name in ("trajectory_entropy", "trajectory_entropy_sum"):  # ln of a probability
        got = one(np.log(confidence), correct, name=name)
        assert got.calibration_error == pytest.approx(want)
        assert [b.samples for b in got.calibration] == [2, 2, 4]
    for name in set(INTRINSIC) - set(CONFIDENCE):
        got = one(confidence, correct, name=name)
        assert got.calibration is None and got.calibration_error is None


def test_a_calibrated_confidence_has_little_error():
    rng = np.random.default_rng(0)
    confidence = rng.random((2000, 4))
    chance = rng.random((2000, 4))
    assert one(confidence, chance < confidence, resamples=9).calibration_error < 0.02
    assert one(confidence, chance < confidence**3, resamples=9).calibration_error > 0.15


def test_histograms_count_every_sample():
    reward, correct = samples(200)
    reward[0, 0], reward[1, 1] = 1e6, -1e6  # outside the edges, counted at the ends
    histogram = one(reward, correct, name="x").histogram
    assert sum(histogram.correct) == correct.sum()
    assert sum(histogram.incorrect) == (~correct).sum()
    assert -5 < histogram.edges[0] < histogram.edges[-1] < 6
    inner = (reward >= histogram.edges[10]) & (reward < histogram.edges[11])
    assert histogram.correct[10] == (inner & correct).sum() > 0


DEGENERATE = {
    "all correct": (REWARD, np.ones((3, 3), bool)),
    "all wrong": (REWARD, np.zeros((3, 3), bool)),
    "one sample": (REWARD[:1, :1], CORRECT[:1, :1]),
    "one sample of each": (REWARD[:, :1], CORRECT[:, :1]),
    "one problem": (REWARD[:1], CORRECT[:1]),
    "constant": (np.full((3, 3), 0.25), CORRECT),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_cases(case, tmp_path):
    reward, correct = DEGENERATE[case]
    analysis = analyse({"probability_disparity": reward, "own": reward}, correct)
    each = analysis.rewards["probability_disparity"]
    both = correct.any() and not correct.all()
    assert (each.auroc is None) == (not both)
    assert (each.correct_mean is None) == (not correct.any())
    assert (each.incorrect_mean is None) == correct.all()
    assert (each.auroc_within is None) == (analysis.mixed_problems == 0)
    if case == "constant":
        assert (each.auroc.value, each.auroc_within.value, len(each.reliability)) == (0.5, 0.5, 1)
        assert each.calibration_error == pytest.approx(abs(0.25 - 1 / 3))
    if "sample" in case:
        assert analysis.random.value == analysis.oracle.value == each.argmax_accuracy.value
    json.dumps(dataclasses.asdict(analysis), allow_nan=False)
    assert len(analysis.lines()) == 4
    figure(analysis, tmp_path / "figure.png")
    assert matplotlib.image.imread(tmp_path / "figure.png").shape[1] == 2160


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_name_and_row(bad):
    reward = REWARD.copy()
    reward[1, 2] = bad
    with pytest.raises(UserError, match=rf"'token_entropy' is {bad} in row 5 \(problem 1, sample"):
        analyse({"self_certainty": REWARD, "token_entropy": reward}, CORRECT)


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"'r' has shape \(9,\) and correct has \(3, 3\)"):
        analyse({"r": REWARD.ravel()}, CORRECT)
    with pytest.raises(UserError, match=r"shape \(0, 4\)"):
        analyse({}, np.ones((0, 4), bool))


def test_the_table():
    rewards = {"probability_disparity": REWARD, "self_certainty": REWARD + 9}
    analysis = analyse(rewards, CORRECT)
    lines = analysis.lines()
    each = analysis.rewards["probability_disparity"]
    rest = [each.auroc_within, each.calibration_error, each.argmax_accuracy]
    cells = [
        x if isinstance(x, str) else f"{x:.3f}" if isinstance(x, float) else x.text(3)
        for x in ("probability_disparity", 2.2 / 3, 2.2 / 6, each.rank_biserial, 16.5 / 18, *rest)
    ]
    assert lines[1].split() == " ".join(cells).split()
    assert lines[2].split()[:3] == ["self_certainty", "9.733", "9.367"]
    assert "2 of 3 problems have both classes" in lines[3]


def rgb(path):
    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)


def ink(image, colour):
    """Pixels of exactly this colour."""
    return int((image == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1).sum())


def test_the_figure(tmp_path):
    rewards = {name: samples(60, seed=row)[0] for row, name in enumerate(INTRINSIC)}
    correct = samples(60)[1]
    figure(analyse(rewards, correct), tmp_path / "all.png")
    image = rgb(tmp_path / "all.png")
    assert image.shape == (1920, 2160, 3)  # 7.2 inches wide at 300 dots an inch
    upper = image[: 1920 * 35 // 64]
    assert ink(upper, "#0072B2") > 1000 and ink(upper, "#D55E00") > 1000  # both classes
    assert ink(upper, "#009E73") == 0 < ink(image, "#009E73")  # the third reward, below only
    figure(analyse(rewards, np.ones_like(correct)), tmp_path / "correct.png")
    assert ink(rgb(tmp_path / "correct.png")[: 1920 * 35 // 64], "#D55E00") < 500  # the legend's
    figure(analyse(rewards, correct), tmp_path / "all.pdf")
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(UserError, match=r"no/figure.png could not be written"):
        figure(analyse(rewards, correct), tmp_path / "no" / "figure.png")
