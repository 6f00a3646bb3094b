"""The coefficient of the entropy bonus, step by step."""

import jax
import numpy as np
import pytest

from rlif_jax.config import Loss
from rlif_jax.loss.entropy import entropy_coefficient

STEERED = Loss(entropy_coef=0.01, entropy_target=0.5, entropy_step=0.01)


@pytest.mark.parametrize("state", [-0.25, 0.0, 0.5])
def test_a_coefficient_without_target_is_the_configured_one(state):
    """Also where the state is that of another run, whose optimiser was kept."""
    for entropy in (0.0, 9.0, np.nan):
        assert [*entropy_coefficient(state, entropy, Loss(entropy_coef=-0.25))] == [-0.25, -0.25]


def test_a_coefficient_with_target_by_hand():
    """It rises below the target, falls above it where the bonus rests, and is never negative."""
    steps = [  # entropy, applied, state for the next step
        (0.4, 0.01, 0.02),
        (0.3, 0.02, 0.03),
        (0.5, 0.03, 0.03),  # at the target: applied, and it stays
        (0.6, 0.0, 0.02),
        (0.7, 0.0, 0.01),
        (0.8, 0.0, 0.0),
        (0.9, 0.0, 0.0),
        (0.1, 0.0, 0.01),
        (0.1, 0.01, 0.02),
    ]
    state = STEERED.entropy_coef
    step = jax.jit(entropy_coefficient, static_argnames="loss")
    for entropy, applied, following in steps:
        got = step(state, entropy, STEERED)
        np.testing.assert_allclose([*got], [applied, following], rtol=1e-5, atol=1e-8)
        assert got.applied.dtype == got.following.dtype == np.float32
        state = got.following


@pytest.mark.parametrize("entropy", [0.499, 0.501])
def test_a_small_distance_moves_it_a_whole_step(entropy):
    got = entropy_coefficient(1.0, entropy, STEERED)
    np.testing.assert_allclose(got.following, 1.01 if entropy < 0.5 else 0.99)
