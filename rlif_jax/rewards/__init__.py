"""Rewards: small pure functions from what is known about a batch to one number per row."""

from rlif_jax.rewards import consensus, controls, intrinsic, novelty, verifiable
from rlif_jax.rewards.combine import (
    combine,
    needs_all_tests,
    needs_execution,
    reward_at,
    runs_all_tests,
)
from rlif_jax.rewards.registry import executing_rewards, known_rewards, reward

__all__ = [
    "combine",
    "consensus",
    "controls",
    "executing_rewards",
    "intrinsic",
    "known_rewards",
    "needs_all_tests",
    "needs_execution",
    "novelty",
    "reward",
    "reward_at",
    "runs_all_tests",
    "verifiable",
]
