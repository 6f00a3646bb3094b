"""From named terms to the reward of each row."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Array, Evidence
from rlif_jax.config import Config, Loss, Reward
from rlif_jax.errors import NotFinite, UserError
from rlif_jax.groups import group_normalised
from rlif_jax.rewards.registry import find_reward

SHORT, OVERLONG = "short_length_penalty", "overlong_penalty"


def needs_execution(reward: Reward) -> bool:
    """Whether some term reads the outcomes of tests.

    Raises:
        UserError: a term is unknown.
    """
    return any(find_reward(name).needs == "exec" for name, _ in reward.terms)


def needs_all_tests(reward: Reward) -> bool:
    """Whether some term reads the outcomes of tests after the first failing one.

    Raises:
        UserError: a term is unknown.
    """
    return any(find_reward(name).all_tests for name, _ in reward.terms)


def reward_after_collapse(config: Config) -> Reward:
    """The reward from a collapse on, where `guard.action` is to change it; else the same."""
    if not config.guard.switches:
        return config.reward
    return dataclasses.replace(config.reward, terms=config.guard.terms, ramps=())


def runs_programs(config: Config) -> bool:
    """Whether programs are run while training: a reward or the configuration asks."""
    rewards = config.reward, reward_after_collapse(config)
    return config.execution.monitor or any(map(needs_execution, rewards))


def needs_teacher(reward: Reward) -> bool:
    """Whether some term reads the outcomes of a teacher's samples.

    Raises:
        UserError: a term is unknown.
    """
    return any(find_reward(name).teacher for name, _ in reward.terms)


def writes_tests(config: Config) -> bool:
    """Whether each step asks the policy for tests, on which programs vote."""
    return config.reward.vote_inputs == "model" and runs_programs(config)


def samplings(config: Config) -> int:
    """How often a step samples: again where a teacher does, and again for tests."""
    return 1 + needs_teacher(config.reward) + writes_tests(config)


def runs_all_tests(config: Config) -> bool:
    """Whether tests after the first failing one are run: a reward or the configuration asks."""
    # Votes compare answers to all of their inputs.
    votes = config.reward.vote_inputs != "problem" or config.gates.of_votes
    rewards = config.reward, reward_after_collapse(config)
    return config.execution.run_all_tests or votes or any(map(needs_all_tests, rewards))


def reward_at(reward: Reward, step: int) -> Reward:
    """The reward with the weights that its `ramps` give its terms at a step, counted from 1."""
    weights = dict(reward.terms)
    for name, first, last, weight in reward.ramps:
        done = min(max((step - first) / (last - first), 0.0), 1.0)
        weights[name] += done * (weight - weights[name])
    return dataclasses.replace(reward, terms=tuple(weights.items()))


def combine(
    reward: Reward, ev: Evidence, std_floor: float = Loss.std_floor
) -> tuple[Array, dict[str, Array]]:
    """The reward of each row, float32 [B], and each term's own value, unweighted, float32 [B].

    `combine="sum"` adds weight * term. "normalise_then_sum" first normalises each term within its
    group (Intuitor's hybrid; GDPO, arXiv 2601.05242), so that weights compare terms of different
    scales, and a term whose group does not differ by `std_floor` (loss.std_floor) adds 0. That sum
    must not be normalised once more, which would give the terms other weights in each group. Then,
    if a certainty term is present, `short_length_penalty` is subtracted once from rows shorter than
    `short_length_tokens`; it is reported as the term "short_length_penalty". Of the penalty of
    overlong rows see `overlong_penalty`; it is the term of that name.

    Raises:
        UserError: a term is unknown or is not one number per row; overlong rows are penalised and
            `ev` has no `max_new_tokens`.
        NotFinite: a term is not finite.
    """
    rows = ev.mask.shape[0]
    terms: dict[str, Array] = {}
    total_B = jnp.zeros(rows, jnp.float32)
    certainty = False
    for name, weight in reward.terms:
        fn = find_reward(name)
        certainty |= fn.needs == "stats"
        terms[name] = _checked(name, fn(ev), rows)
        value_B = terms[name]
        if reward.combine == "normalise_then_sum":
            value_B = group_normalised(value_B, ev.group_size, std_floor)
        total_B += weight * value_B
    if certainty and reward.short_length_tokens > 0:
        short_B = ev.mask.sum(axis=1) < reward.short_length_tokens
        terms[SHORT] = jnp.where(short_B, -reward.short_length_penalty, 0.0).astype(jnp.float32)
        total_B += terms[SHORT]
    if reward.overlong_buffer_tokens > 0:
        terms[OVERLONG] = overlong_penalty(reward, ev)
        total_B += terms[OVERLONG]
    return _checked("sum of all terms", total_B, rows), terms


def overlong_penalty(reward: Reward, ev: Evidence) -> Array:
    """DAPO's soft overlong punishment, float32 [B], not positive (arXiv 2503.14476, equation 13).

    It falls linearly over the last `overlong_buffer_tokens` that sampling allows, from 0 to
    -`overlong_penalty` at `max_new_tokens`.

    Raises:
        UserError: `ev` has no `max_new_tokens`.
    """
    buffer = reward.overlong_buffer_tokens
    if ev.max_new_tokens is None:
        raise UserError(
            f"reward.overlong_buffer_tokens={buffer} needs Evidence.max_new_tokens, where the "
            "buffer ends: give it, or set reward.overlong_buffer_tokens to 0."
        )
    beyond_B = ev.mask.sum(axis=1) - (ev.max_new_tokens - buffer)
    share_B = jnp.maximum(beyond_B, 0).astype(jnp.float32) / buffer
    return -reward.overlong_penalty * share_B


def _checked(name: str, value_B: Array, rows: int) -> Array:
    """`value_B` as float32 if it is [B] and finite.

    Raises:
        UserError: it is not [B].
        NotFinite: it is not finite.
    """
    value_B = jnp.asarray(value_B)
    if value_B.shape != (rows,):
        raise UserError(
            f"Reward term {name!r} has shape {value_B.shape}, but the batch has {rows} rows: "
            "return one number per row, for example the masked mean over tokens."
        )
    value_B = value_B.astype(jnp.float32)
    bad = np.flatnonzero(~np.isfinite(np.asarray(value_B)))
    if bad.size:
        row = int(bad[0])
        raise NotFinite(
            f"Reward term {name!r} is {float(value_B[row])} in row {row} ({bad.size} of {rows} "
            "rows are not finite): the model's outputs have overflowed, or the term divides by "
            "zero. Lower optim.learning_rate, or correct the term."
        )
    return value_B
