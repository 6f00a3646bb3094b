"""Rewards from agreement between the samples of a prompt: majority vote for programs.

Two programs are equal when they gave equal answers on every input of the problem, so that a class
of equal programs votes together. Expected outputs play no part: verdicts are not looked at, only
`Outcome.answers`. A program votes when it answered every input; one that crashed, ran into a limit,
did not compile or is missing does not vote. Source: TTRL, arXiv 2504.16084, whose majority
answer to a question becomes here the majority behaviour on a problem's inputs.
"""

from collections import Counter

import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Array, Evidence
from rlif_jax.errors import UserError
from rlif_jax.problem import Outcome
from rlif_jax.rewards.registry import reward
from rlif_jax.rewards.verifiable import outcomes_of


@reward(needs="exec", all_tests=True)
def majority_vote(ev: Evidence) -> Array:
    """1 if no class of the row's group is larger than the row's own, else 0; 0 without a vote.

    Of several largest classes each counts. A single program can therefore be the majority: when no
    two agree, every row that votes has 1, and an advantage normalised within the group is left with
    the difference between answering and not. A group without any vote has 0 throughout.
    """
    size_NG = _class_sizes(ev)
    largest_N1 = size_NG.max(axis=1, keepdims=True)
    return jnp.asarray((size_NG > 0) & (size_NG == largest_N1), jnp.float32).reshape(-1)


@reward(needs="exec", all_tests=True)
def vote_fraction(ev: Evidence) -> Array:
    """Share of the group that is in the row's class, itself included, in [0, 1]; 0 without a vote.

    Rows that do not vote count in the denominator, so a class is only as large as its share of all
    samples of the prompt.
    """
    return jnp.asarray(_class_sizes(ev) / ev.group_size, jnp.float32).reshape(-1)


def _class_sizes(ev: Evidence) -> np.ndarray:
    """Rows of the group whose programs equal the row's, itself included, [N, G]; 0: no vote."""
    votes = [_vote(row, outcome) for row, outcome in enumerate(outcomes_of(ev))]
    sizes = []
    for start in range(0, len(votes), ev.group_size):
        group = votes[start : start + ev.group_size]
        counts = Counter(vote for vote in group if vote is not None)
        sizes.append([counts[vote] if vote is not None else 0 for vote in group])
    return np.asarray(sizes)


def _vote(row: int, outcome: Outcome) -> tuple[str | None, ...] | None:
    """The answers of a program that answered every input; None when it did not.

    Raises:
        UserError: answers were not recorded, or the judge stopped before the last test.
    """
    answers = outcome.answers
    if len(answers) != len(outcome.results):
        raise UserError(
            f"The outcome of row {row} has {len(answers)} answers for {len(outcome.results)} tests "
            "that were run, and a majority vote compares answers, which the judge keeps where it "
            "runs all tests: set --execution.run-all-tests, or declare the reward that calls this "
            'one with @reward(needs="exec", all_tests=True).'
        )
    if None in answers:
        return None
    if 0 < len(answers) < outcome.tests_total:
        raise UserError(
            f"The outcome of row {row} has answers to {len(answers)} of {outcome.tests_total} "
            "tests, because the judge stopped at the first failing one, and a majority vote "
            "compares answers to all: set --execution.run-all-tests, or declare the reward that "
            'calls this one with @reward(needs="exec", all_tests=True).'
        )
    return answers or None
