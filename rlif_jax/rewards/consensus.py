"""Rewards from agreement between the samples of a prompt: majority vote for programs.

Two programs are equal when they gave equal answers on every input of the problem, or on those that
reward.vote_inputs has in their place, so that a class of equal programs votes together. Expected
outputs play no part: verdicts are not looked at, only `Outcome.answers`. A program votes when it
answered every input; one that crashed, ran into a limit, did not compile or is missing does not
vote. Of inputs that were made, those that no program of the group answered are left out: one may
break a rule of the statement, and all right programs fail on it. Source: TTRL, arXiv 2504.16084,
whose majority answer to a question becomes here the majority behaviour on a problem's inputs.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Array, Evidence
from rlif_jax.errors import UserError
from rlif_jax.problem import Outcome
from rlif_jax.rewards.registry import reward
from rlif_jax.rewards.verifiable import outcomes_of

Answered = tuple[str | None, ...]


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


@reward(needs="exec", all_tests=True)
def behaviour_entropy(ev: Evidence) -> Array:
    """As `vote_fraction`, in groups whose votes have an entropy below reward.vote_entropy_max.

    H = -sum p ln p over the classes of the programs that vote, in nats (EMPO, arXiv 2504.05812:
    where the votes are spread the majority is not to be believed). In other groups 0.
    """
    most, groups = ev.settings.vote_entropy_max, classes_of(ev)
    believed_N = np.array([most is None or vote_entropy(group) < most for group in groups])
    share_NG = _class_sizes(ev) / ev.group_size
    return jnp.asarray(share_NG * believed_N[:, None], jnp.float32).reshape(-1)


@reward(needs="exec", all_tests=True, teacher=True)
def teacher_vote(ev: Evidence) -> Array:
    """1 if the row's program is in the class that its prompt's teacher samples vote for, else 0.

    With reward.teacher_pool=joint the group's own programs vote as well. Of several largest classes
    each counts; where no program votes all have 0. Source: Co-rewarding-II (arXiv 2508.00410) and,
    for the joint pool, M-GRPO (arXiv 2512.13070), whose teacher is an average of the policy.
    """
    own, taught, G = _answers(_voting(ev)), _answers(_teaching(ev)), ev.group_size
    rewards = []
    for start in range(0, len(own), G):
        rows = slice(start, start + G)
        votes = _votes(own[rows] + taught[rows], ev.settings.made_inputs)
        pool = votes[G:] + (votes[:G] if ev.settings.teacher_pool == "joint" else [])
        size = Counter(vote for vote in pool if vote is not None)
        largest = max(size.values(), default=0)
        rewards += [vote is not None and 0 < largest == size[vote] for vote in votes[:G]]
    return jnp.asarray(rewards, jnp.float32)


@reward(needs="exec", all_tests=True)
def soft_vote(ev: Evidence) -> Array:
    """Mean over the other rows of the group of the share of inputs with equal answers, in [0, 1].

    Unlike a vote it sees programs that agree on most inputs only; an input without an answer agrees
    with nothing. Source: functional majority voting, arXiv 2604.15618. A group of one has 0.
    """
    rows = _answers(_voting(ev))
    rewards = []
    for start in range(0, len(rows), ev.group_size):
        group = rows[start : start + ev.group_size]
        asked = _asked(group, ev.settings.made_inputs)
        counts = {t: Counter(row[t] for row in group if t < len(row)) for t in asked}
        for row in group:
            # Of the group, the row itself left out, those that answer each input alike.
            own = ((t, row[t]) for t in counts if t < len(row))
            alike = [counts[t][one] - 1 for t, one in own if one is not None]
            rewards.append(sum(alike) / max(len(counts) * (ev.group_size - 1), 1))
    return jnp.asarray(rewards, jnp.float32)


def behaviours(
    outcomes: Sequence[Outcome], group_size: int, made: bool = False
) -> list[list[list[int]]]:
    """The classes of equal programs of each group, each a list of the rows that vote in it.

    `made`: the inputs are `made_inputs` of the reward's settings.

    Raises:
        UserError: answers were not recorded, or the judge stopped before the last test.
    """
    answers, groups = _answers(outcomes), []
    for start in range(0, len(outcomes), group_size):
        classes: dict[Answered, list[int]] = {}
        for row, vote in enumerate(_votes(answers[start : start + group_size], made), start):
            if vote is not None:
                classes.setdefault(vote, []).append(row)
        groups.append(list(classes.values()))
    return groups


def classes_of(ev: Evidence) -> list[list[list[int]]]:
    """The `behaviours` of each group on the inputs of votes."""
    return behaviours(_voting(ev), ev.group_size, ev.settings.made_inputs)


def vote_entropy(classes: Sequence[Sequence[int]]) -> float:
    """-sum p ln p over the classes of one group, of `behaviours`, in nats; 0 without a vote."""
    sizes = np.array([len(rows) for rows in classes], np.float64)
    share = sizes / max(sizes.sum(), 1)
    return -float((share * np.log(share)).sum())


def _voting(ev: Evidence) -> tuple[Outcome, ...]:
    """The outcomes on the inputs of votes, one per row; see reward.vote_inputs."""
    return outcomes_of(ev) if ev.votes is None else ev.votes


def _teaching(ev: Evidence) -> tuple[Outcome, ...]:
    """The outcomes of the teacher's samples, as many as there are rows.

    Raises:
        UserError: no teacher has sampled, or not for every prompt.
    """
    rows = ev.mask.shape[0]
    if ev.teacher is None or len(ev.teacher) != rows:
        found = "teacher=None" if ev.teacher is None else f"{len(ev.teacher)} outcomes of a teacher"
        raise UserError(
            f"The evidence has {found} for {rows} rows, and this reward reads the votes of a "
            "teacher: let one sample as many completions of each prompt, or declare the reward "
            'that calls this one with @reward(needs="exec", all_tests=True, teacher=True).'
        )
    return ev.teacher


def _class_sizes(ev: Evidence) -> np.ndarray:
    """Rows of the group whose programs equal the row's, itself included, [N, G]; 0: no vote."""
    size_B = np.zeros(len(_voting(ev)), int)
    for rows in itertools.chain.from_iterable(classes_of(ev)):
        size_B[rows] = len(rows)
    return size_B.reshape(-1, ev.group_size)


def _votes(group: Sequence[Answered], made: bool) -> list[Answered | None]:
    """What each program of a group votes for, by its answers; None: it does not vote."""
    asked, inputs = _asked(group, made), max(map(len, group))
    votes = [tuple(row[t] for t in asked) if len(row) == inputs else (None,) for row in group]
    return [None if None in vote else vote or None for vote in votes]


def _asked(group: Sequence[Answered], made: bool) -> list[int]:
    """The inputs of a vote by their place: all, or those `made` that some program answers."""

    def answered(t: int) -> bool:
        return any(t < len(row) and row[t] is not None for row in group)

    return [t for t in range(max(map(len, group))) if not made or answered(t)]


def answers_known(outcome: Outcome) -> bool:
    """Whether the answers to all inputs were recorded, as far as the program gave any."""
    answers = outcome.answers
    whole = len(answers) in (0, outcome.tests_total) or None in answers
    return whole and len(answers) == len(outcome.results)


def _answers(outcomes: Sequence[Outcome]) -> list[Answered]:
    """The answers of each program to all inputs, None where it gave none; () of no program.

    Raises:
        UserError: answers were not recorded, or the judge stopped before the last test.
    """
    return [_answers_of(row, outcome) for row, outcome in enumerate(outcomes)]


def _answers_of(row: int, outcome: Outcome) -> Answered:
    answers = outcome.answers
    if answers_known(outcome):
        return answers
    if len(answers) != len(outcome.results):
        raise UserError(
            f"The outcome of row {row} has {len(answers)} answers for {len(outcome.results)} tests "
            "that were run, and a majority vote compares answers, which the judge keeps where it "
            "runs all tests: set --execution.run-all-tests, or declare the reward that calls this "
            'one with @reward(needs="exec", all_tests=True).'
        )
    raise UserError(
        f"The outcome of row {row} has answers to {len(answers)} of {outcome.tests_total} "
        "tests, because the judge stopped at the first failing one, and a majority vote "
        "compares answers to all: set --execution.run-all-tests, or declare the reward that "
        'calls this one with @reward(needs="exec", all_tests=True).'
    )
