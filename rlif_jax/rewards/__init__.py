"""Rewards: small pure functions from what is known about a batch to one number per row."""

from rlif_jax.rewards import consensus, controls, generated, intrinsic, novelty, verifiable
from rlif_jax.rewards.combine import (
    combine,
    needs_all_tests,
    needs_execution,
    needs_teacher,
    reward_after_collapse,
    reward_at,
    runs_all_tests,
    runs_programs,
    samplings,
    writes_tests,
)
from rlif_jax.rewards.registry import executing_rewards, known_rewards, reward

__all__ = [
    "combine",
    "consensus",
    "controls",
    "executing_rewards",
    "generated",
    "intrinsic",
    "known_rewards",
    "needs_all_tests",
    "needs_execution",
    "needs_teacher",
    "novelty",
    "reward",
    "reward_after_collapse",
    "reward_at",
    "runs_all_tests",
    "runs_programs",
    "samplings",
    "verifiable",
    "writes_tests",
]
