"""Statistics of rewards within their groups, the G samples of a prompt: row = n * G + g."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Array
from rlif_jax.errors import UserError

EPS = 1e-6  # added to the group's standard deviation, as in verl


class GroupStatistics(NamedTuple):
    """Of N groups, float32: `centred` r - mean [N, G]; `std` unbiased and `differs` bool [N, 1]."""

    centred: Array
    std: Array
    differs: Array


def group_statistics(reward_B: Array, group_size: int, std_floor: float) -> GroupStatistics:
    """How the rewards of each group differ from their mean.

    A group `differs` where its std exceeds `std_floor` times its largest |reward|; elsewhere
    `centred` is 0 throughout. A float32 reward is rounded to about 1e-7 of its size, so a floor of
    1e-6 lies above a few units in the last place at every magnitude. Equal rewards are centred at
    exactly 0 even without a floor. NumPy arrays are reduced on the host, JAX arrays on the devices.

    Raises:
        UserError: the rows are not whole groups.
    """
    xp = jnp if isinstance(reward_B, jax.Array) else np
    reward_B = xp.asarray(reward_B, np.float32)
    if reward_B.shape[0] % group_size:
        raise UserError(
            f"{reward_B.shape[0]} rewards are not whole groups of {group_size}: the number of rows "
            "has to be a multiple of sampling.samples_per_prompt."
        )
    reward_NG = reward_B.reshape(-1, group_size)
    # Relative to a member: the rounded mean of equal rewards may differ from them, that of zeros
    # cannot.
    from_first_NG = reward_NG - reward_NG[:, :1]
    centred_NG = from_first_NG - from_first_NG.mean(axis=1, keepdims=True)
    # Relative to the largest: squares of small differences underflow, squares of large ones
    # overflow.
    largest_N1 = abs(centred_NG).max(axis=1, keepdims=True)
    unit_NG = centred_NG / xp.where(largest_N1 > 0, largest_N1, 1)
    variance_N1 = (unit_NG**2).sum(axis=1, keepdims=True) / max(group_size - 1, 1)
    std_N1 = largest_N1 * xp.sqrt(variance_N1)
    differs_N1 = std_N1 > std_floor * abs(reward_NG).max(axis=1, keepdims=True)
    return GroupStatistics(xp.where(differs_N1, centred_NG, 0), std_N1, differs_N1)


def informative_groups(reward_B: Array, group_size: int, std_floor: float) -> Array:
    """Which of the N groups differ and so have an advantage to learn from, bool [N].

    The groups that DAPO's dynamic sampling keeps (arXiv 2503.14476): with a reward of 0 or 1, those
    in which some samples pass and some fail.
    """
    return group_statistics(reward_B, group_size, std_floor).differs[:, 0]


def group_normalised(reward_B: Array, group_size: int, std_floor: float) -> Array:
    """(r - group mean) / (unbiased std + 1e-6), float32 [B]; 0 in groups that do not differ."""
    group = group_statistics(reward_B, group_size, std_floor)
    return (group.centred / (group.std + EPS)).reshape(-1)
