"""Rewards: small pure functions from what is known about a batch to one number per row."""

from rlif_jax.rewards import controls, intrinsic, verifiable
from rlif_jax.rewards.combine import combine, needs_execution
from rlif_jax.rewards.registry import known_rewards, reward

__all__ = [
    "combine",
    "controls",
    "intrinsic",
    "known_rewards",
    "needs_execution",
    "reward",
    "verifiable",
]
