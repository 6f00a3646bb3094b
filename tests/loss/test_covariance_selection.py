"""The choice of Clip-Cov and KL-Cov by hand, and what it may not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlif_jax.config import Loss
from rlif_jax.loss.selection import covariance_selection

KEY = jax.random.key(3)

# Means over the six tokens: A 1/2 (rows of 3, 2 and 1 tokens, A 1, -1, 2), ln p -2.
ADVANTAGE = np.array([1.0, -1.0, 2.0])
LOGPROB = np.array([[-1.0, -2.0, -3.0], [-4.0, -1.5, np.nan], [-0.5, np.nan, np.inf]])
MASK = np.isfinite(LOGPROB)
COVARIANCE = [[0.5, 0.0, -0.5], [3.0, -0.75, np.nan], [2.25, np.nan, np.nan]]


def choose(loss, logprob=LOGPROB, advantage=ADVANTAGE, mask=MASK, key=KEY):
    arrays = (jnp.asarray(logprob, jnp.float32), jnp.asarray(advantage), jnp.asarray(mask))
    chosen = covariance_selection(*arrays, loss, key)
    assert chosen is not None
    return np.asarray(chosen)


def kl_cov(fraction):
    return Loss(variant="kl_cov", dual_clip=None, cov_fraction=fraction)


def clip_cov(fraction, low, high):
    return Loss(
        variant="clip_cov", dual_clip=None, cov_fraction=fraction, clip_cov_range=(low, high)
    )


@pytest.mark.parametrize(
    ("fraction", "chosen"),
    [
        (1e-9, {(1, 0)}),  # at least one
        (0.34, {(1, 0), (2, 0)}),
        (0.49, {(1, 0), (2, 0)}),  # the whole part of 2.94
        (0.51, {(1, 0), (2, 0), (0, 0)}),
        (1.0, set(zip(*np.nonzero(MASK), strict=True))),
    ],
)
def test_kl_cov_takes_the_largest(fraction, chosen):
    assert set(zip(*np.nonzero(choose(kl_cov(fraction))), strict=True)) == chosen


def test_kl_cov_takes_the_earlier_of_equals():
    mask = np.ones((2, 3), bool)
    chosen = choose(kl_cov(0.5), np.zeros((2, 3)), np.zeros(2), mask)
    np.testing.assert_array_equal(chosen, [[True] * 3, [False] * 3])


@pytest.mark.parametrize(
    ("low", "high", "eligible"),
    [
        (0.4, 2.5, {(0, 0), (2, 0)}),
        (2.25, 5.0, {(1, 0)}),  # both ends are left out
        (0.5, 3.0, {(2, 0)}),
        (3.5, 5.0, set()),
    ],
)
def test_clip_cov_draws_inside_its_range(low, high, eligible):
    everything = choose(clip_cov(1.0, low, high))
    assert set(zip(*np.nonzero(everything), strict=True)) == eligible
    one = choose(clip_cov(1e-9, low, high))
    assert one.sum() == min(1, len(eligible)) and not np.any(one & ~everything)


def test_clip_cov_draws_each_eligible_token_as_often():
    rng = np.random.default_rng(0)
    logprob, mask = rng.normal(size=(4, 10)), np.ones((4, 10), bool)
    loss = clip_cov(0.1, -np.inf, np.inf)  # four of forty
    draw = lambda key: covariance_selection(jnp.asarray(logprob), jnp.ones(4), mask, loss, key)
    chosen = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(KEY, 400)))
    np.testing.assert_array_equal(chosen.sum(axis=(1, 2)), 4)
    times = chosen.sum(axis=0)  # binomial: mean 40, standard deviation 6
    assert times.min() > 15 and times.max() < 65


@pytest.mark.parametrize(
    "loss", [kl_cov(0.2), clip_cov(0.2, -0.5, 1.0)], ids=lambda one: one.variant
)
def test_padding_and_compilation_change_nothing(loss):
    """More columns, more rows, junk outside the mask, and one compiled program."""
    rng = np.random.default_rng(1)
    logprob, advantage = rng.normal(-1, 1, (6, 9)), rng.normal(size=6)
    mask = rng.random((6, 9)) < 0.8
    want = choose(loss, logprob, advantage, mask)
    assert want.sum() == int(0.2 * mask.sum()) and not np.any(want & ~mask)
    wider = np.full((8, 12), np.nan)
    wider[:6, :9] = np.where(mask, logprob, np.inf)
    padded = np.pad(mask, ((0, 2), (0, 3)))
    more = np.concatenate([advantage, [np.nan, 1e30]])
    got = choose(loss, wider, more, padded)
    np.testing.assert_array_equal(got[:6, :9], want)
    assert got.sum() == want.sum()
    compiled = jax.jit(covariance_selection, static_argnames="loss")
    np.testing.assert_array_equal(compiled(logprob, advantage, mask, loss, KEY), want)


def test_a_draw_follows_its_key():
    loss, rng = clip_cov(0.2, -1.0, 1.0), np.random.default_rng(1)
    logprob, mask = rng.normal(size=(6, 9)), np.ones((6, 9), bool)
    draws = [choose(loss, logprob, np.arange(6.0), mask, jax.random.key(k)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])


@pytest.mark.parametrize("variant", ["grpo", "gspo", "cispo"])
def test_other_variants_select_nothing(variant):
    arrays = (jnp.asarray(LOGPROB), jnp.asarray(ADVANTAGE), jnp.asarray(MASK))
    assert covariance_selection(*arrays, Loss(variant=variant), KEY) is None
