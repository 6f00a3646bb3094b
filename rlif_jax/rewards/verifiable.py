"""Rewards from running each row's program against the tests of its problem (RLVR)."""

import re

import jax.numpy as jnp
import numpy as np

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

    q is the confidence of the response (the score of RLCR, arXiv 2507.16806): the geometric mean of
    its tokens' probabilities, or with reward.confidence=stated the number that it gives, as in
    RLCR. A response that states none has the least score that passing or not allows, 0 or -1, as if
    it were certain of the opposite, so that nothing is gained by leaving it out.
    """
    passed_B = tests_passed(ev)
    if ev.settings.confidence == "sequence":
        q_B = jnp.exp(masked_mean_B(ev.stats.logprob, ev.mask))
    else:
        said_B = [stated_confidence(text) for text in of_each_row(ev, "texts", "the response")]
        known_B = np.array([q is not None for q in said_B])
        q_B = jnp.where(known_B, np.array([q or 0.0 for q in said_B], np.float32), 1 - passed_B)
    return passed_B - (q_B - passed_B) ** 2


_STATED = re.compile("<confidence>(.*?)</confidence>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"((?<![0-9.])[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(\s*%)?")


def stated_confidence(text: str) -> float | None:
    """The confidence that a response states, in [0, 1]; None: it states none.

    It is the last number between its last <confidence> and </confidence>. One with % or above 1
    counts as percent; what is then outside of [0, 1] is taken to its nearer end.
    """
    stated = _STATED.findall(text)
    numbers = _NUMBER.findall(stated[-1]) if stated else []
    if not numbers:
        return None
    number, percent = numbers[-1]
    value = float(number)
    return min(max(value / 100 if percent or value > 1 else value, 0.0), 1.0)


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


def of_each_row(ev: Evidence, name: str, what: str) -> tuple:
    """`texts` or `codes` of the evidence. Raises UserError where there is not one per row."""
    values, rows = getattr(ev, name), ev.mask.shape[0]
    if values is None or len(values) != rows:
        count = "no" if values is None else len(values)
        raise UserError(
            f"The evidence has {count} {name} for {rows} rows, and this reward reads {what} of "
            f"each: give Evidence.{name}, one per row."
        )
    return values
