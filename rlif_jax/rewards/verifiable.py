"""Rewards from running each row's program against the tests of its problem (RLVR)."""

import jax.numpy as jnp

from rlif_jax.batch import Array, Evidence
from rlif_jax.errors import UserError
from rlif_jax.problem import Outcome
from rlif_jax.rewards.intrinsic import masked_mean_B
from rlif_jax.rewards.registry import reward


@reward(needs="exec")
def tests_passed(ev: Evidence) -> Array:
    """1 if the row's program passes every test, else 0."""
    return jnp.asarray([outcome.passed for outcome in outcomes_of(ev)], jnp.float32)


@reward(needs="exec", all_tests=True)
def tests_fraction(ev: Evidence) -> Array:
    """Share of the tests that the row's program passes; those that were not run count as failed."""
    return jnp.asarray([outcome.fraction_passed for outcome in outcomes_of(ev)], jnp.float32)


@reward(needs="exec")
def brier(ev: Evidence) -> Array:
    """Passing, and knowing it: 1[pass] - (q - 1[pass])^2, in [-1, 1].

    q is the confidence of the response, the geometric mean of its tokens' probabilities (the score
    of RLCR, arXiv 2507.16806, which asks the model for q).
    """
    passed_B = tests_passed(ev)
    q_B = jnp.exp(masked_mean_B(ev.stats.logprob, ev.mask))
    return passed_B - (q_B - passed_B) ** 2


def outcomes_of(ev: Evidence) -> tuple[Outcome, ...]:
    """One outcome per row.

    Raises:
        UserError: programs were not run, or not for every row.
    """
    if ev.outcomes is None:
        raise UserError(
            "The evidence has outcomes=None, and this reward reads the outcomes of tests: run the "
            'programs first, or declare the reward that calls it with @reward(needs="exec").'
        )
    rows = ev.mask.shape[0]
    if len(ev.outcomes) != rows:
        raise UserError(
            f"The evidence has {len(ev.outcomes)} outcomes for {rows} rows: give one per row, in "
            "the order of the rows."
        )
    return ev.outcomes
