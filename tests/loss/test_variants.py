"""The clipped surrogate against values worked by hand from the published formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.one_loss import one_loss

from rlif_jax.config import Loss


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
def test_clipped_surrogate_by_hand(ratio, advantage, surrogate, slope, clipped, dual):
    loss = Loss(clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    run = lambda logprob: one_loss(logprob, [[-2.0]], [advantage], loss=loss)
    logprob = jnp.array([[-2.0 + np.log(ratio)]])
    (value, metrics), gradient = jax.value_and_grad(run, has_aux=True)(logprob)
    np.testing.assert_allclose(value, surrogate, rtol=1e-5)
    # d ratio / d logprob is the ratio itself.
    np.testing.assert_allclose(gradient[0, 0], slope, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss/ratio"], ratio, rtol=1e-5)
    assert float(metrics["loss/clip_fraction"]) == clipped
    assert float(metrics["loss/dual_clip_fraction"]) == dual


def test_without_dual_clip_a_bad_action_is_not_bounded():
    value, metrics = one_loss([[np.log(5.0)]], [[0.0]], [-1.0], loss=Loss(dual_clip=None))
    np.testing.assert_allclose(value, 5.0, rtol=1e-6)
    assert float(metrics["loss/dual_clip_fraction"]) == 0


def test_an_enormous_log_ratio_stays_finite():
    value, metrics = one_loss([[0.0, -500.0]], [[-500.0, 0.0]], [-1.0], loss=Loss(dual_clip=None))
    np.testing.assert_allclose(value, (np.exp(20.0) + 0.8) / 2, rtol=1e-5)
    assert all(np.isfinite(v) for v in metrics.values())
