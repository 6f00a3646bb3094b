"""The surrogates against values worked by hand, and against their papers' formulas in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.one_loss import loss_tokens, one_loss, whole
from support.packed_tokens import VARIANTS, as_tokens, packed
from support.plain_loss import plain_surrogate, slopes

from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.loss.advantages import group_advantages
from rlif_jax.loss.policy import policy_loss


def value_and_slope(logprob, old, advantage, loss, **more):
    """Of a mini-batch in one piece: its loss, its metrics and the slope of each token."""
    run = lambda logprob: one_loss(logprob, old, advantage, loss=loss, **more)
    (value, metrics), gradient = jax.value_and_grad(run, has_aux=True)(jnp.asarray(logprob))
    return float(value), metrics, np.asarray(gradient)


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "slope", "clipped", "dual"),
    [
        (1.0, 2.0, -2.0, -2.0, 0, 0),
        (1.1, 2.0, -2.2, -2.2, 0, 0),
        (1.5, 2.0, -2.56, 0.0, 1, 0),  # above 1 + 0.28
        (0.5, 2.0, -1.0, -1.0, 0, 0),  # the clip never hides a loss
        (0.5, -1.0, 0.8, 0.0, 1, 0),  # below 1 - 0.2
        (1.5, -1.0, 1.5, 1.5, 0, 0),
        (5.0, -1.0, 3.0, 0.0, 0, 1),  # dual clip at 3
        (5.0, 1.0, -1.28, 0.0, 1, 0),
    ],
)
def test_grpo_by_hand(ratio, advantage, surrogate, slope, clipped, dual):
    loss = Loss(clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    value, metrics, gradient = value_and_slope(
        [[-2.0 + np.log(ratio)]], [[-2.0]], [advantage], loss
    )
    np.testing.assert_allclose(value, surrogate, rtol=1e-5)
    # d ratio / d logprob is the ratio itself.
    np.testing.assert_allclose(gradient[0, 0], slope, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss/ratio"], ratio, rtol=1e-5)
    assert float(metrics["loss/clip_fraction"]) == clipped
    assert float(metrics["loss/dual_clip_fraction"]) == dual


def test_without_dual_clip_a_bad_action_is_not_bounded():
    value, metrics = one_loss([[np.log(5.0)]], [[0.0]], [-1.0], loss=Loss(dual_clip=None))
    np.testing.assert_allclose(value, 5.0, rtol=1e-6)
    assert "loss/dual_clip_fraction" not in metrics


def test_gspo_by_hand():
    """Two completions in a row, of ratios sqrt(2 * 0.72) = 1.2 and 1.05 = (1.05^3)^(1/3)."""
    ratio = np.array([[2.0, 0.72, 1.05, 1.05**3, 1 / 1.05]])
    loss = Loss(variant="gspo", dual_clip=None, clip_high=0.1, aggregation="sequence_mean")
    value, metrics, gradient = value_and_slope(
        np.log(ratio), np.zeros((1, 5)), [[3.0, 3.0, 2.0, 2.0, 2.0]], loss, segment=[1, 1, 4, 4, 4]
    )
    # The first is clipped to 1.1, and none of its tokens trains; of the second all do alike.
    np.testing.assert_allclose(value, (-3 * 1.1 - 2 * 1.05) / 2, rtol=1e-6)
    each = -2 * 1.05 / 3 / 2
    np.testing.assert_allclose(gradient, [[0, 0, each, each, each]], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/clip_fraction"], 2 / 5)
    np.testing.assert_allclose(metrics["loss/ratio"], (2 * 1.2 + 3 * 1.05) / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight", "clipped"),
    [
        (1.1, 2.0, 1.1, 0),
        (1.5, 2.0, 1.28, 1),  # clipped, and yet it trains
        (0.5, 2.0, 0.8, 1),
        (0.5, -1.0, 0.8, 1),
        (5.0, -1.0, 1.28, 1),
    ],
)
def test_cispo_by_hand(ratio, advantage, weight, clipped):
    loss = Loss(variant="cispo", dual_clip=None, clip_low=0.2, clip_high=0.28)
    logprob = -2.0 + np.log(ratio)
    value, metrics, gradient = value_and_slope([[logprob]], [[-2.0]], [advantage], loss)
    np.testing.assert_allclose(value, -advantage * weight * logprob, rtol=1e-6)
    np.testing.assert_allclose(gradient[0, 0], -advantage * weight, rtol=1e-6)
    assert float(metrics["loss/clip_fraction"]) == clipped
    np.testing.assert_allclose(metrics["loss/ratio"], ratio, rtol=1e-6)


RATIOS, SELECTED = [[1.1, 1.5, 0.5, 1.1]], [[True, False, False, False]]


def test_clip_cov_by_hand():
    loss = Loss(variant="clip_cov", dual_clip=None, aggregation="token_mean")
    value, metrics, gradient = value_and_slope(
        np.log(RATIOS), np.zeros((1, 4)), [2.0], loss, selected=SELECTED
    )
    # The first token is selected, the second clipped at 1.2.
    np.testing.assert_allclose(value, -2 * (0 + 1.2 + 0.5 + 1.1) / 4, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, -2 * 0.5 / 4, -2 * 1.1 / 4]], rtol=1e-6)
    assert float(metrics["loss/selected_fraction"]) == 0.25
    assert float(metrics["loss/clip_fraction"]) == 0.25


@pytest.mark.parametrize(("ratio", "slope"), [(1.1, 3.0), (1 / 1.1, -3.0), (1.0, 0.0)])
def test_kl_cov_by_hand(ratio, slope):
    loss = Loss(variant="kl_cov", dual_clip=None, kl_cov_coef=3.0)
    value, metrics, gradient = value_and_slope(
        np.log([[ratio, 5.0]]), np.zeros((1, 2)), [-2.0], loss, selected=[[True, False]]
    )
    np.testing.assert_allclose(value, (2 * ratio + 3 * abs(np.log(ratio)) + 2 * 5) / 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[(2 * ratio + slope) / 2, 5.0]], rtol=1e-6)
    assert float(metrics["loss/selected_fraction"]) == 0.5
    assert "loss/clip_fraction" not in metrics


@pytest.mark.parametrize("variant", ["clip_cov", "kl_cov"])
def test_a_variant_without_its_selection_is_refused(variant):
    with pytest.raises(UserError, match=f"loss.variant='{variant}'.*covariance_selection"):
        one_loss([[0.0]], [[0.0]], [1.0], loss=Loss(variant=variant, dual_clip=None))


def test_dr_grpo_by_hand():
    """Rewards 1, 0 and lengths 2, 3: A = +-1/2, and the sum is over 2 * MAX_NEW = 20."""
    loss = Loss(advantage="dr_grpo", aggregation="dr_grpo")
    advantage = group_advantages(np.float32([1, 0]), 2, loss.advantage, loss.std_floor)
    mask = [[True, True, False], [True, True, True]]
    value, _, gradient = value_and_slope(
        np.zeros((2, 3)), np.zeros((2, 3)), advantage, loss, mask=mask
    )
    np.testing.assert_allclose(value, (-0.5 * 2 + 0.5 * 3) / 20, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.where(mask, [[-0.5], [0.5]], 0) / 20, rtol=1e-6)


def test_dapo_by_hand():
    """Clip-higher at 1.28, and each token of the group counts the same whatever its completion."""
    loss = Loss(clip_high=0.28, aggregation="token_mean")
    advantage = group_advantages(np.float32([1, 0]), 2, loss.advantage, loss.std_floor)
    unit = 0.5 / (np.sqrt(0.5) + 1e-6)
    ratio = np.array([[1.25, 1.3, 1.0], [1.0, 0.7, 1.0]])
    mask = [[True, True, False], [True, True, True]]
    value, metrics, gradient = value_and_slope(
        np.log(ratio), np.zeros((2, 3)), advantage, loss, mask=mask
    )
    np.testing.assert_allclose(value, unit * (-1.25 - 1.28 + 1 + 0.8 + 1) / 5, rtol=1e-5)
    want = unit * np.array([[-1.25, 0, 0], [1, 0, 1]]) / 5
    np.testing.assert_allclose(gradient, want, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/clip_fraction"], 2 / 5)


# Against the formulas in float64


def against_the_formula(arrays, loss, slope=True):
    """Values, and the slopes by central differences, of the surrogate alone."""
    tokens = as_tokens(arrays)
    denominator = whole(tokens, loss)
    run = lambda logprob: policy_loss(tokens.replace(logprob=logprob), loss, denominator, 0.0)[0]
    value, gradient = jax.value_and_grad(run)(tokens.logprob)
    want = plain_surrogate(arrays["logprob"], arrays["logprob"], arrays, loss)
    np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5)
    if slope:
        np.testing.assert_allclose(gradient, slopes(arrays, loss), rtol=1e-3, atol=1e-5)
    return gradient


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_values_and_slopes_are_those_of_the_formula(variant, aggregation):
    loss = dataclasses.replace(VARIANTS[variant], aggregation=aggregation)
    gradient = against_the_formula(packed(5, rows=3, columns=9), loss)
    assert float(jnp.abs(gradient).max()) > 1e-2


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(VARIANTS)), st.integers(0, 2**31), st.floats(-3, 4))
def test_values_hold_at_every_magnitude(variant, seed, exponent):
    """Log ratios of 1e-3 to 1e4; what the exponential makes of them is bounded at e^20."""
    arrays = packed(seed, rows=3, columns=9, spread=10**exponent)
    arrays = {  # rounded first, since exp multiplies the error of its argument
        name: np.float64(np.float32(x)) if x.dtype == np.float64 else x
        for name, x in arrays.items()
    }
    gradient = against_the_formula(arrays, VARIANTS[variant], slope=False)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_an_enormous_log_ratio_stays_finite(variant, size):
    run = lambda logprob: one_loss(
        logprob, [[-size, 0.0]], [-1.0], loss=VARIANTS[variant], selected=[[True, True]]
    )
    (value, metrics), gradient = jax.value_and_grad(run, has_aux=True)(jnp.array([[0.0, -size]]))
    for number in (value, *metrics.values(), *gradient.ravel()):
        assert np.isfinite(number)


def test_a_bad_action_is_bounded_by_e_to_20():
    value, _ = one_loss([[0.0, -500.0]], [[-500.0, 0.0]], [-1.0], loss=Loss(dual_clip=None))
    np.testing.assert_allclose(value, (np.exp(20.0) + 0.8) / 2, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_old_log_probabilities_the_policy_is_its_own(variant):
    arrays, loss = packed(2), VARIANTS[variant]
    gradients = []
    for old in (None, arrays["logprob"]):
        tokens = as_tokens({**arrays, "old_logprob": old})
        run = lambda logprob, t=tokens: policy_loss(
            t.replace(logprob=logprob), loss, whole(t, loss), 0.0
        )
        gradients.append(jax.value_and_grad(run, has_aux=True)(tokens.logprob))
    jax.tree.map(np.testing.assert_array_equal, *gradients)
    assert float(gradients[0][0][1]["loss/ratio"]) == pytest.approx(1, abs=1e-6)
    assert np.any(np.asarray(gradients[0][1]))


def test_a_completion_of_ten_thousand_tokens_keeps_its_mean():
    ratio, T = 1.01, 10_000
    tokens = loss_tokens(np.full((1, T), np.log(ratio), np.float32), [1.0], segment=T)
    tokens = tokens.replace(old_logprob=jnp.zeros((1, T)))
    loss = dataclasses.replace(VARIANTS["gspo"], aggregation="sequence_mean")
    value, metrics = policy_loss(tokens, loss, whole(tokens, loss), 0.0)
    np.testing.assert_allclose(metrics["loss/ratio"], ratio, rtol=1e-5)
    np.testing.assert_allclose(value, -ratio, rtol=1e-5)
