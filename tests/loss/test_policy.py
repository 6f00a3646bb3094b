"""The whole loss: aggregation and entropy bonus worked by hand, and the laws it obeys."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from support.one_loss import MAX_NEW, one_loss, whole
from support.packed_tokens import VARIANTS, as_tokens, packed

from rlif_jax.config import Loss
from rlif_jax.errors import UserError
from rlif_jax.loss.aggregation import loss_denominator, trained_completions
from rlif_jax.loss.policy import policy_loss
from rlif_jax.loss.tokens import LossTokens
from rlif_jax.sharding import make_mesh

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


# The sampler's correction


def test_sampler_correction_by_hand():
    """Weights 1.5 and, capped at 2, that of a token ten times likelier than the sampler had it."""
    loss = Loss(sampler_correction_cap=2.0, kl_coef=0.5, kl_estimator="k2")
    at = np.log([[0.3, 0.4, 0.5]])
    sampler = at - np.log([[1.5, 10.0, 0.1]])
    run = lambda logprob: one_loss(
        logprob, at, [-3.0], loss=loss, ref=at - 1, sampler_logprob=sampler
    )
    (value, metrics), gradient = jax.value_and_grad(run, has_aux=True)(jnp.asarray(at))
    policy = 3 * (1.5 + 2 + 0.1) / 3
    np.testing.assert_allclose(metrics["loss/policy"], policy, rtol=1e-6)
    np.testing.assert_allclose(value, policy + 0.5 * 0.5, rtol=1e-6)  # the KL has no weight
    want = [[(3 * weight + 0.5) / 3 for weight in (1.5, 2.0, 0.1)]]
    np.testing.assert_allclose(gradient, want, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/sampler_weight"], 1.2, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/sampler_capped_fraction"], 1 / 3, rtol=1e-6)


def test_the_correction_of_an_only_update_has_no_gradient_of_its_own():
    loss, sampler = Loss(sampler_correction_cap=2.0), [[-1.5, -4.0]]
    run = lambda logprob: one_loss(logprob, None, [1.0], loss=loss, sampler_logprob=sampler)[0]
    value, gradient = jax.value_and_grad(run)(jnp.array([[-1.0, -1.0]]))
    np.testing.assert_allclose(value, -(np.exp(0.5) + 2) / 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-np.exp(0.5) / 2, -1]], rtol=1e-6)


def test_a_correction_without_the_sampler_is_refused():
    with pytest.raises(UserError, match=r"sampler_correction_cap=2\.0 needs the sampler's"):
        one_loss([[0.0]], [[0.0]], [1.0], loss=Loss(sampler_correction_cap=2.0))


# The overlong filter


def test_overlong_filter_by_hand():
    """The second of three completions is truncated: two remain, with three tokens."""
    loss = Loss(overlong_filter=True)
    truncated = jnp.array([False, True, False])
    kept = trained_completions(truncated, loss)
    np.testing.assert_array_equal(kept, [True, False, True])
    assert np.all(trained_completions(truncated, Loss()))
    mask = np.array([[1, 1], [1, 1], [1, 0]], bool) & np.asarray(kept)[:, None]
    for aggregation, value in (
        ("token_mean", (-2 * 1 + 4) / 3),
        ("sequence_mean", (-1 + 4) / 2),
        ("dr_grpo", (-2 * 1 + 4) / (2 * MAX_NEW)),
    ):
        one = dataclasses.replace(loss, aggregation=aggregation)
        got, _ = one_loss(np.zeros((3, 2)), np.zeros((3, 2)), [1.0, 9.0, -4.0], mask, one)
        np.testing.assert_allclose(got, value, rtol=1e-6)


def test_a_mini_batch_of_which_nothing_remains_has_no_loss():
    for aggregation in ("token_mean", "sequence_mean", "dr_grpo"):
        loss = Loss(aggregation=aggregation, kl_coef=0.1)
        run = lambda logprob, loss=loss: one_loss(
            logprob, [[np.nan]], [1.0], [[False]], loss, ref=[[np.nan]]
        )
        (value, metrics), gradient = jax.value_and_grad(run, has_aux=True)(jnp.array([[np.nan]]))
        for number in (value, gradient[0, 0], *metrics.values()):
            assert number == 0


# Laws

SWITCHED_ON = {"kl_coef": 0.05, "entropy_coef": 0.01, "sampler_correction_cap": 1.2}
MEANS = "sequence_mean"
FULL = {name: dataclasses.replace(loss, **SWITCHED_ON) for name, loss in VARIANTS.items()}


@functools.partial(jax.jit, static_argnames="loss")
def loss_and_gradients(tokens: LossTokens, loss: Loss, denominator):
    """The loss and its metrics; the gradients of the log-probability and of the entropy."""

    def run(logprob, entropy):
        here = tokens.replace(logprob=logprob, entropy=entropy)
        return policy_loss(here, loss, denominator, loss.entropy_coef)

    return jax.value_and_grad(run, (0, 1), has_aux=True)(tokens.logprob, tokens.entropy)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "dr_grpo"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_pieces_add_up_to_the_whole(variant, aggregation):
    loss, pieces = dataclasses.replace(FULL[variant], aggregation=aggregation), 4
    tokens = as_tokens(packed(1))
    denominator = whole(tokens, loss)
    (value, metrics), gradients = loss_and_gradients(tokens, loss, denominator)
    parts = [
        loss_and_gradients(jax.tree.map(lambda x, i=i: x[i::pieces], tokens), loss, denominator)
        for i in range(pieces)
    ]
    np.testing.assert_allclose(sum(p[0][0] for p in parts), value, rtol=1e-5)
    for name, one in metrics.items():
        np.testing.assert_allclose(sum(p[0][1][name] for p in parts), one, rtol=1e-5, atol=1e-7)
    for argument, one in enumerate(gradients):
        assert np.any(np.asarray(one))
        for i, part in enumerate(parts):
            np.testing.assert_allclose(part[1][argument], one[i::pieces], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_completion_counts_the_same_wherever_it_stands(variant):
    """Two completions side by side in a row, and each in a row of its own."""
    tokens, loss = as_tokens(packed(6)), dataclasses.replace(FULL[variant], aggregation=MEANS)
    apart = jax.tree.map(lambda x: jnp.concatenate([x, x]), tokens)
    first = jnp.arange(len(apart.mask))[:, None] < len(tokens.mask)
    apart = apart.replace(mask=apart.mask & (apart.segment == jnp.where(first, 1, 2)))
    together, separate = (loss_and_gradients(t, loss, whole(t, loss)) for t in (tokens, apart))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, separate[0], together[0])
    summed = [x[: len(tokens.mask)] + x[len(tokens.mask) :] for x in separate[1]]
    jax.tree.map(close, summed, list(together[1]))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    variant=st.sampled_from(sorted(VARIANTS)),
    aggregation=st.sampled_from(["token_mean", MEANS]),
    junk=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]),
)
def test_what_the_mask_leaves_out_has_no_influence(seed, variant, aggregation, junk):
    arrays = packed(seed)
    fill = {np.dtype(np.float64): junk, np.dtype(np.int32): 10**6, np.dtype(bool): True}
    spoilt = {
        name: x if name == "mask" else np.where(arrays["mask"], x, fill[x.dtype])
        for name, x in arrays.items()
    }
    tokens = as_tokens(arrays)
    loss = dataclasses.replace(FULL[variant], aggregation=aggregation)
    denominator = whole(tokens, loss)
    clean, dirty = (loss_and_gradients(as_tokens(a), loss, denominator) for a in (arrays, spoilt))
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    for gradient in clean[1]:
        assert not np.any(np.asarray(gradient)[~arrays["mask"]])


def test_rows_without_tokens_add_nothing():
    mask = np.array([[True, True], [False, False]])
    loss = Loss(aggregation="sequence_mean")
    tokens = as_tokens({**packed(0, rows=2), "old_logprob": None})
    alone = jax.tree.map(lambda x: x[:1], tokens)
    empty = tokens.replace(mask=tokens.mask & (jnp.arange(2) == 0)[:, None])
    denominator = loss_denominator(mask.sum(), 2, loss, MAX_NEW)
    values = [loss_and_gradients(t, loss, denominator)[0] for t in (alone, empty)]
    jax.tree.map(np.testing.assert_array_equal, *values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_inputs_are_widened(variant):
    loss, narrow = FULL[variant], as_tokens(packed(3), jnp.bfloat16)
    denominator = whole(narrow, loss)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, narrow)
    (want, wanted_slopes), (got, slopes) = (
        loss_and_gradients(t, loss, denominator) for t in (wide, narrow)
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    jax.tree.map(close, got, want)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    for slope, wanted in zip(slopes, wanted_slopes, strict=True):
        assert slope.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(slope), wanted, rtol=2**-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mesh_that_splits_rows_and_columns_gives_the_same(variant):
    tokens, loss = as_tokens(packed(4, columns=16)), FULL[variant]
    denominator = whole(tokens, loss)
    alone = loss_and_gradients(tokens, loss, denominator)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    place = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor"))
    with jax.set_mesh(mesh):
        spread = loss_and_gradients(jax.device_put(tokens, place), loss, denominator)
    assert len(spread[1][0].sharding.device_set) == 8
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, jax.device_get(spread), jax.device_get(alone))
