"""Rewards: small pure functions from what is known about a batch to one number per row."""

from rlif_jax.rewards import consensus, controls, intrinsic, verifiable
from rlif_jax.rewards.combine import (
    combine,
    needs_all_tests,
    needs_execution,
    needs_teacher,
    reward_at,
    runs_all_tests,
)
from rlif_jax.rewards.registry import known_rewards, reward

__all__ = [
    "combine",
    "consensus",
    "controls",
    "intrinsic",
    "known_rewards",
    "needs_all_tests",
    "needs_execution",
    "needs_teacher",
    "reward",
    "reward_at",
    "runs_all_tests",
    "verifiable",
]
