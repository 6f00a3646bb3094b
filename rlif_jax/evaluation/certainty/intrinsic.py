"""The intrinsic rewards of sampled responses, by the functions that train on them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rlif_jax.batch import Evidence, TokenStats
from rlif_jax.rewards.registry import find_reward

INTRINSIC = (
    "self_certainty",
    "token_entropy",
    "trajectory_entropy",
    "probability_disparity",
    "token_entropy_sum",
    "trajectory_entropy_sum",
)
"""Rewards that a response has on its own. sequence_probability is relative to its group, in which
it orders responses as trajectory_entropy_sum does."""


def rewards_of(
    stats: TokenStats, mask: ArrayLike, names: Sequence[str] = INTRINSIC
) -> dict[str, np.ndarray]:
    """Each reward of each response, float32 [B], larger is more certain.

    `stats` and `mask` [B, C] as in `Evidence`. Raises `UserError` for an unknown name.
    """
    evidence = Evidence(
        stats=jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), stats),
        mask=jnp.asarray(mask, bool),
        truncated=jnp.zeros(len(np.asarray(mask)), bool),
        key=jax.random.key(0),
        group_size=1,
    )
    return {name: np.asarray(find_reward(name)(evidence)) for name in names}
