"""The whole loss: aggregation and entropy bonus worked by hand, and the laws it obeys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.one_loss import MAX_NEW, one_loss

from rlif_jax.config import Loss
from rlif_jax.loss.aggregation import loss_denominator
from rlif_jax.loss.policy import policy_loss

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


# Entropy


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
