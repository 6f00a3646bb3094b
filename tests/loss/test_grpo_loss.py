"""Advantages and loss against values worked by hand from the published formulas, and their laws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.loss.grpo_loss import (
    group_advantages,
    kl_estimate,
    loss_denominator,
    policy_loss,
)

MAX_NEW = 10


def one_loss(logprob, old, advantage, mask=None, loss=None, ref=None, entropy=None):
    """Loss and metrics of a mini-batch in one piece."""
    loss = loss or Loss()
    logprob = jnp.asarray(logprob, jnp.float32)
    mask = jnp.ones(logprob.shape, bool) if mask is None else jnp.asarray(mask)
    return policy_loss(
        logprob,
        jnp.zeros_like(logprob) if entropy is None else jnp.asarray(entropy, jnp.float32),
        jnp.asarray(old, jnp.float32),
        None if ref is None else jnp.asarray(ref, jnp.float32),
        jnp.asarray(advantage, jnp.float32),
        mask,
        loss,
        loss_denominator(mask, loss, MAX_NEW),
    )


# Advantages


def test_grpo_advantage_by_hand():
    # Group 1: mean 2, unbiased std 1. Group 2: mean 1/3, unbiased std 0.5773503.
    advantage = group_advantages(np.array([1.0, 2.0, 3.0, 0.0, 0.0, 1.0]), 3, "grpo", 1e-6)
    want = [-0.999999, 0.0, 0.999999, -0.5773493, -0.5773493, 1.1546985]
    np.testing.assert_allclose(advantage, want, rtol=1e-6, atol=1e-7)
    assert advantage.dtype == jnp.float32


def test_dr_grpo_and_plain_advantage_by_hand():
    reward = jnp.array([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    np.testing.assert_allclose(group_advantages(reward, 3, "dr_grpo", 1e-6), [-2, -1, 3, -1, -1, 2])
    np.testing.assert_array_equal(group_advantages(reward, 3, "none", 1e-6), reward)
    np.testing.assert_array_equal(group_advantages(reward, 1, "none", 1e-6), reward)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo"])
def test_equal_rewards_and_rounding_noise_have_no_advantage(kind):
    noise = np.float32(0.7) + np.float32(6e-8) * np.array([0, 1, -1, 2], np.float32)
    reward = np.concatenate([np.full(4, 0.1, np.float32), noise, [0, 0, 0, 1]])
    advantage = np.asarray(group_advantages(reward, 4, kind, 1e-6))
    np.testing.assert_array_equal(advantage[:8], 0.0)
    assert advantage[11] > 0.7


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_std_floor_is_a_share_of_the_largest_reward(scale):
    reward = np.array([-0.1, 0.2], np.float32) * scale  # unbiased std 1.06 of the largest
    for kind in ("grpo", "dr_grpo"):
        assert np.all(group_advantages(reward, 2, kind, 1.07) == 0)
        assert np.all(group_advantages(reward, 2, kind, 1.05) != 0)


def test_groups_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match="samples_per_prompt"):
        group_advantages(np.zeros(4), 1, "grpo", 1e-6)
    with pytest.raises(UserError, match="7 rewards are not whole groups of 2"):
        group_advantages(np.zeros(7), 2, "grpo", 1e-6)


# Clipping


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


# Aggregation

MASK = np.array([[1, 1, 1, 1], [1, 0, 0, 0]], bool)


@pytest.mark.parametrize(
    ("aggregation", "value", "weights"),
    [
        # Surrogates: -1 for each of the 4 tokens of row 0, +2 for the one token of row 1.
        ("token_mean", (-4 + 2) / 5, (1 / 5, 1 / 5)),
        ("sequence_mean", (-1 + 2) / 2, (1 / 8, 1 / 2)),
        ("dr_grpo", (-4 + 2) / (2 * MAX_NEW), (1 / 20, 1 / 20)),
    ],
)
def test_aggregation_by_hand(aggregation, value, weights):
    loss = Loss(aggregation=aggregation)
    run = lambda logprob: one_loss(logprob, np.zeros((2, 4)), [1.0, -2.0], MASK, loss)[0]
    got, gradient = jax.value_and_grad(run)(jnp.zeros((2, 4)))
    np.testing.assert_allclose(got, value, rtol=1e-6)
    want = np.where(MASK, np.array([[-1.0 * weights[0]], [2.0 * weights[1]]]), 0)
    np.testing.assert_allclose(gradient, want, rtol=1e-6)


# KL and entropy


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


def test_entropy_bonus_by_hand():
    loss = Loss(entropy_coef=0.01)
    run = lambda entropy: one_loss(
        np.zeros((2, 4)), np.zeros((2, 4)), [0, 0], MASK, loss, None, entropy
    )
    entropy = jnp.array([[1.0, 2.0, 3.0, 4.0], [5.0, 9.0, 9.0, 9.0]])
    (got, metrics), gradient = jax.value_and_grad(run, has_aux=True)(entropy)
    np.testing.assert_allclose(got, -0.01 * 3.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/entropy"], 3.0, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.where(MASK, -0.01 / 5, 0), rtol=1e-6)


# Laws


def random_batch(seed, rows=8, columns=5):
    rng = np.random.default_rng(seed)
    logprob, old, ref = rng.normal(-1, 0.5, (3, rows, columns)).astype(np.float32)
    length = rng.integers(1, columns + 1, rows)
    return {
        "logprob": logprob,
        "entropy": rng.uniform(0, 2, (rows, columns)).astype(np.float32),
        "old": old,
        "ref": ref,
        "advantage": rng.normal(size=rows).astype(np.float32),
        "mask": np.arange(columns) < length[:, None],
    }


def loss_and_gradients(batch, loss, denominator):
    def run(logprob, entropy):
        rest = (batch["old"], batch["ref"], jnp.asarray(batch["advantage"]), batch["mask"])
        return policy_loss(logprob, entropy, *rest, loss, denominator)

    logprob, entropy = jnp.asarray(batch["logprob"]), jnp.asarray(batch["entropy"])
    return jax.value_and_grad(run, (0, 1), has_aux=True)(logprob, entropy)


FULL = Loss(kl_coef=0.05, entropy_coef=0.01)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "dr_grpo"])
@pytest.mark.parametrize("pieces", [2, 8])
def test_micro_batches_add_up_to_the_whole(aggregation, pieces):
    loss = dataclasses.replace(FULL, aggregation=aggregation)
    batch = random_batch(1)
    denominator = loss_denominator(jnp.asarray(batch["mask"]), loss, MAX_NEW)
    (value, metrics), gradients = loss_and_gradients(batch, loss, denominator)
    parts = [
        loss_and_gradients({k: v[i::pieces] for k, v in batch.items()}, loss, denominator)
        for i in range(pieces)
    ]
    np.testing.assert_allclose(sum(p[0][0] for p in parts), value, rtol=1e-5)
    for name, whole in metrics.items():
        np.testing.assert_allclose(sum(p[0][1][name] for p in parts), whole, rtol=1e-5, atol=1e-7)
    for argument, whole in enumerate(gradients):
        for i, part in enumerate(parts):
            np.testing.assert_allclose(part[1][argument], whole[i::pieces], rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), junk=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]))
def test_what_the_mask_leaves_out_has_no_influence(seed, junk):
    batch = random_batch(seed)
    denominator = loss_denominator(jnp.asarray(batch["mask"]), FULL, MAX_NEW)
    spoilt = dict(batch)
    for name in ("logprob", "entropy", "old", "ref"):
        spoilt[name] = np.where(batch["mask"], batch[name], np.float32(junk))
    clean, dirty = (loss_and_gradients(b, FULL, denominator) for b in (batch, spoilt))
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    for gradient in clean[1]:
        assert not np.any(np.asarray(gradient)[~batch["mask"]])


def test_rows_without_tokens_add_nothing():
    mask = np.array([[True, True], [False, False]])
    loss = Loss(aggregation="sequence_mean")
    value, _ = one_loss(np.zeros((2, 2)), np.zeros((2, 2)), [3.0, 7.0], mask, loss)
    np.testing.assert_allclose(value, -3.0 / 2)


def test_bfloat16_inputs_are_widened():
    logprob = jnp.full((1, 2), -1.0, jnp.bfloat16)
    mask, loss = jnp.ones((1, 2), bool), Loss()
    value, metrics = policy_loss(
        logprob,
        logprob,
        logprob,
        None,
        jnp.ones(1, jnp.bfloat16),
        mask,
        loss,
        loss_denominator(mask, loss, MAX_NEW),
    )
    assert value.dtype == jnp.float32
    assert {m.dtype for m in metrics.values()} == {jnp.dtype(jnp.float32)}
