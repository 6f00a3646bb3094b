"""KL estimates against values worked by hand, and against the exact divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.one_loss import one_loss

from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.loss.kl import kl_estimate


@pytest.mark.parametrize(
    ("estimator", "log_ratio", "value", "slope"),
    [
        ("k1", 0.5, 0.5, 0.5),  # the gradient of k2
        ("k1", -60.0, -60.0, -60.0),
        ("k2", 0.5, 0.125, 0.5),
        ("k3", 0.5, np.exp(-0.5) - 1 + 0.5, 1 - np.exp(-0.5)),
        ("k3", -2.5, np.exp(2.5) - 1 - 2.5, 1 - np.exp(2.5)),
        ("k3", -2.7, 10.0, 0.0),  # bounded from here on
        ("k3", -15.0, 10.0, 0.0),
        ("k3", -500.0, 10.0, 0.0),
        ("k3", 12.0, 10.0, 0.0),
    ],
)
def test_kl_by_hand(estimator, log_ratio, value, slope):
    loss = Loss(kl_coef=0.1, kl_estimator=estimator)
    # Advantage 0: what remains is the KL term, of a policy e^log_ratio times the reference.
    ref = [[-1.0 - log_ratio]]
    run = lambda logprob: one_loss(logprob, [[-1.0]], [0.0], loss=loss, ref=ref)
    (got, metrics), gradient = jax.value_and_grad(run, has_aux=True)(jnp.array([[-1.0]]))
    np.testing.assert_allclose(got, 0.1 * value, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/kl"], value, rtol=1e-5)
    np.testing.assert_allclose(gradient[0, 0], 0.1 * slope, rtol=1e-5)


@pytest.mark.parametrize(("estimator", "tolerance"), [("k1", 1e-5), ("k2", 1e-5), ("k3", 0.2)])
def test_the_expected_gradient_pulls_towards_the_reference(estimator, tolerance):
    """Over a whole distribution, against the exact gradient of KL(policy || reference).

    That of k3 is of the KL the other way around, which is near it where the two are near.
    """
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    ref = jnp.log(jnp.array([0.45, 0.33, 0.22]))

    def exact(z):
        logp = jax.nn.log_softmax(z)
        return (jnp.exp(logp) * (logp - ref)).sum()

    def sampled(z):
        # Tokens are drawn from the policy, and the gradient passes by their weights.
        weight = jax.lax.stop_gradient(jax.nn.softmax(z))
        return (weight * kl_estimate(jax.nn.log_softmax(z) - ref, estimator)).sum()

    want, got = jax.grad(exact)(logits), jax.grad(sampled)(logits)
    assert float(jnp.abs(want).max()) > 0.02
    np.testing.assert_allclose(got, want, rtol=tolerance)


def test_k1_and_k3_estimate_the_same_divergence():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
    exact = (p * np.log(p / q)).sum()
    for estimator in ("k1", "k3"):
        mean = (p * np.asarray(kl_estimate(jnp.log(p / q), estimator))).sum()
        np.testing.assert_allclose(mean, exact, rtol=1e-5)


def test_k3_of_a_tiny_log_ratio_survives_rounding():
    np.testing.assert_allclose(kl_estimate(jnp.float32(1e-3), "k3"), 5e-7 - 1e-9 / 6, rtol=1e-3)


def test_a_kl_term_without_reference_is_refused():
    with pytest.raises(UserError, match=r"kl_coef=0\.005"):
        one_loss([[0.0]], [[0.0]], [1.0], loss=Loss(kl_coef=0.005))


def test_no_kl_metric_without_reference():
    assert "loss/kl" not in one_loss([[0.0]], [[0.0]], [1.0])[1]
