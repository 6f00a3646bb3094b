"""What a training step leaves for people: its metrics, and a record of each completion."""

from typing import Any

import numpy as np
from flax import struct

from rlif_jax.batch import Array, Rollout, TokenStats
from rlif_jax.config import Config
from rlif_jax.metrics import execution_metrics, reward_metrics, rollout_metrics
from rlif_jax.problem import Outcome
from rlif_jax.run.log import completion_records
from rlif_jax.sampler.engine import Usage
from rlif_jax.submissions import Submissions


@struct.dataclass
class StepRecord:
    """All that metrics.jsonl and rollouts/ show of a step; one `jax.device_get` brings it over.

    `reward`, `advantage` and every term are [B]. `policy` [B, C] are the statistics the loss began
    with, which are the rollout's own when the sampler's are used (`policy_is_sampler`). `updates`
    are the metrics of each optimiser update.
    """

    rollout: Rollout
    policy: TokenStats
    reward: Array
    terms: dict[str, Array]
    advantage: Array
    updates: list[dict[str, Any]]
    policy_is_sampler: bool = struct.field(pytree_node=False)
    submissions: Submissions = struct.field(pytree_node=False)
    outcomes: tuple[Outcome, ...] | None = struct.field(pytree_node=False)
    usage: Usage = struct.field(pytree_node=False)

    def metrics(self, cfg: Config) -> dict[str, float]:
        """The metrics of the step but for its times; the record is on the host."""
        first = self.updates[0]
        values = {
            **reward_metrics(
                self.reward, self.terms, cfg.sampling.samples_per_prompt, cfg.loss.std_floor
            ),
            **rollout_metrics(
                self.policy,
                self.rollout.mask,
                self.rollout.truncated,
                self.submissions.texts,
                max_new_tokens=cfg.sampling.max_new_tokens,
                sampler_stats=None if self.policy_is_sampler else self.rollout.stats,
            ),
            **({} if self.outcomes is None else execution_metrics(self.outcomes)),
            **{name: float(np.mean([m[name] for m in self.updates])) for name in first},
            "throughput/slot_use": self.usage.useful / self.usage.slot_steps,
        }
        if self.policy_is_sampler:  # the update has seen the trainer's before it changed them
            values["drift/sampler_logprob"] = float(first["loss/old_distance"])
        return values

    def completions(self) -> list[dict[str, Any]]:
        """One record per completion, in row order; the record is on the host."""
        return completion_records(
            self.submissions.problems,
            self.submissions.prompts,
            self.submissions.texts,
            self.submissions.codes,
            reward=self.reward,
            terms=self.terms,
            advantage=self.advantage,
            outcomes=self.outcomes,
            length=self.rollout.length,
            truncated=self.rollout.truncated,
        )

    def tokens(self, samples_per_row: int) -> tuple[int, int]:
        """Tokens sampled, and tokens trained on: each row repeats its prompt once."""
        sampled = int(self.rollout.length.sum())
        return sampled, sampled + int(self.rollout.prompt_mask[::samples_per_row].sum())
