"""Drawing from a distribution: exact frequencies, the ends of the range, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.sampler.draw import draw, row_keys


@pytest.mark.parametrize("vocabulary", [5, 256, 257, 700])
def test_frequencies_follow_the_softmax(vocabulary):
    rng = np.random.default_rng(vocabulary)
    z_V = jnp.asarray(rng.normal(0, 2, vocabulary), jnp.float32)
    rows = 20_000
    drawn_B = draw(jnp.tile(z_V, (rows, 1)), row_keys(jax.random.key(1), rows), jnp.int32(3))
    counts_V = np.bincount(np.asarray(drawn_B), minlength=vocabulary)
    expected_V = np.asarray(jax.nn.softmax(z_V), np.float64) * rows
    # Pearson's statistic over cells with enough mass; its mean is the number of cells.
    kept = expected_V > 5
    statistic = ((counts_V - expected_V)[kept] ** 2 / expected_V[kept]).sum()
    cells = kept.sum()
    assert abs(statistic - cells) < 5 * np.sqrt(2 * cells)


def test_a_certain_token_is_always_drawn_wherever_it_stands():
    for column in (0, 255, 256, 511, 599):
        z_BV = jnp.full((64, 600), -jnp.inf).at[:, column].set(0.0)
        drawn_B = draw(z_BV, row_keys(jax.random.key(column), 64), jnp.int32(0))
        assert (np.asarray(drawn_B) == column).all()


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(1, 600), st.floats(-1e4, 1e4))
def test_only_entries_with_mass_are_drawn(seed, vocabulary, shift):
    rng = np.random.default_rng(seed)
    z_BV = rng.normal(shift, 30, (8, vocabulary)).astype(np.float32)
    z_BV[:, rng.random(vocabulary) < 0.5] = -np.inf
    z_BV[:, rng.integers(vocabulary)] = shift
    drawn_B = np.asarray(draw(jnp.asarray(z_BV), row_keys(jax.random.key(seed), 8), jnp.int32(1)))
    assert ((drawn_B >= 0) & (drawn_B < vocabulary)).all()
    assert np.isfinite(z_BV[np.arange(8), drawn_B]).all()


def test_a_row_depends_on_its_key_and_column_only():
    z_BV = jax.random.normal(jax.random.key(0), (6, 300))
    keys = row_keys(jax.random.key(7), 6)
    whole = np.asarray(draw(z_BV, keys, jnp.int32(2)))
    for row in range(6):
        alone = draw(z_BV[row : row + 1], keys[row : row + 1], jnp.int32(2))
        assert alone[0] == whole[row]
    assert (np.asarray(draw(z_BV, keys, jnp.int32(3))) != whole).any()
    assert (row_keys(jax.random.key(7), 9)[:6] == keys).all()


def test_every_row_may_be_at_a_token_of_its_own():
    z_BV = jax.random.normal(jax.random.key(0), (64, 300))
    keys, t_B = row_keys(jax.random.key(7), 64), np.arange(64) % 5
    drawn = np.asarray(draw(z_BV, keys, jnp.asarray(t_B, jnp.int32)))
    for t in range(5):
        at = np.asarray(draw(z_BV, keys, jnp.int32(t)))
        np.testing.assert_array_equal(drawn[t_B == t], at[t_B == t])
        assert (drawn[t_B != t] != at[t_B != t]).mean() > 0.5
