"""What a step leaves: its numbers for metrics.jsonl, rollouts/ and provenance.jsonl, or why not."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlif_jax.batch import Array, Params
from rlif_jax.config import Config
from rlif_jax.experience import Experience, drawn_arrays, kept_of
from rlif_jax.gates import gate_metrics
from rlif_jax.metrics import execution_metrics, reward_metrics, rollout_metrics, teacher_metrics
from rlif_jax.packing import Packing
from rlif_jax.rewards import reward_at
from rlif_jax.run.digest import digests
from rlif_jax.run.log import completion_records
from rlif_jax.run.policy import Policy
from rlif_jax.run.token_record import TokenRecord
from rlif_jax.sampler.draw import key_data
from rlif_jax.weights.token_ends import Ends


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """All that metrics.jsonl, rollouts/ and provenance.jsonl show of a step, on the host.

    `experience` is all that was drawn, and `advantage` [B] that of its rows. `updates` are the
    metrics of each optimiser update. `packings` say where the completions that were trained on
    stood in the mini-batches. `drawn_by` are the parameters that drew it.
    """

    experience: Experience
    advantage: Array
    updates: list[dict[str, Any]]
    packings: list[Packing]
    drawn_by: Policy

    def metrics(self, cfg: Config) -> dict[str, float]:
        """The metrics of the step but for its times."""
        seen, updates = self.experience, self.updates
        outcomes, N = seen.answers.outcomes, cfg.data.prompts_per_step
        taught, G = seen.taught, cfg.sampling.samples_per_prompt
        made = cfg.reward.made_inputs
        weights = dict(reward_at(cfg.reward, self.drawn_by.step + 1).terms)
        return {
            **reward_metrics(
                seen.reward, seen.terms, cfg.sampling.samples_per_prompt, cfg.loss.std_floor
            ),
            **gate_metrics(cfg.gates, seen.open, kept_of(cfg, seen)),
            **{f"reward/{name}_weight": weights[name] for name, *_ in cfg.reward.ramps},
            **{name: float(np.mean([m[name] for m in updates])) for name in updates[0]},
            # Of the first update, which alone starts from the policy that has sampled.
            "drift/sampler_logprob": float(updates[0]["drift/sampler_logprob"]),
            **rollout_metrics(
                seen.policy or seen.rollout.stats,
                seen.rollout.mask,
                seen.rollout.truncated,
                seen.answers.texts,
                max_new_tokens=cfg.sampling.max_new_tokens,
                sampler_stats=seen.rollout.stats if seen.policy else None,
                group_size=cfg.sampling.samples_per_prompt,
            ),
            "rollout/refills": len(seen.problems) / N - 1,
            **(
                {}
                if outcomes is None
                else execution_metrics(
                    outcomes,
                    seen.reward,
                    cfg.sampling.samples_per_prompt,
                    seen.answers.votes,
                    seen.answers.generated,
                    made,
                )
            ),
            **(
                {}
                if taught is None or taught.outcomes is None
                else teacher_metrics(taught.votes, taught.outcomes, G, made)
            ),
            "throughput/slot_use": seen.usage.slot_use,
            **(
                {"throughput/tokens_per_draw": seen.usage.tokens_per_draw}
                if cfg.sampling.draft_tokens
                else {}
            ),
            "throughput/column_use": self.trained_tokens / sum(p.columns for p in self.packings),
        }

    @property
    def sampled_tokens(self) -> int:
        """Tokens of all completions that were drawn, those of a teacher and of tests included."""
        return self.experience.usage.useful

    @property
    def trained_tokens(self) -> int:
        """Tokens that an epoch trains on, those of prompts included."""
        return sum(packing.filled for packing in self.packings)

    def completions(self) -> list[dict[str, Any]]:
        """A record of each completion that was drawn, in row order."""
        seen = self.experience
        return completion_records(
            seen.problems,
            [prompt.text for prompt in seen.prompts],
            seen.answers.texts,
            seen.answers.codes,
            reward=seen.reward,
            terms=seen.terms,
            advantage=self.advantage,
            outcomes=seen.answers.outcomes,
            length=seen.rollout.length,
            truncated=seen.rollout.truncated,
            tokens=seen.rollout.tokens,
            keys=seen.keys,
            policy=self.drawn_by.record(),
        )

    def tokens(self, ends: Ends) -> TokenRecord:
        """The certainty of each token of these completions, as the stats/ metrics read it."""
        seen = self.experience
        texts, group = seen.answers.texts, len(seen.answers.texts) // len(seen.prompts)
        rows = zip(np.asarray(seen.rollout.tokens), np.asarray(seen.rollout.length), strict=True)
        found = [
            ends(seen.prompts[row // group].tokens, tokens[:length], texts[row])
            for row, (tokens, length) in enumerate(rows)
        ]
        return TokenRecord.of(seen.policy or seen.rollout.stats, seen.rollout.mask, found)

    def provenance(
        self, key: jax.Array, position: Mapping[str, Any], params: Params
    ) -> dict[str, Any]:
        """What the step was computed from, and the digests of the parameters it has given.

        `key` is that of the run, `position` the place in the data after the step. Under several
        processes every one of them calls this.
        """
        return {
            "key": key_data(key).tolist(),
            "problems": [problem.id for problem in self.experience.problems],
            "position": position,
            "policy": self.drawn_by.record(),
            "parameters": digests(params),
        }


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A batch whose reward, loss or gradient is not finite: why, and what was drawn, by name."""

    reason: str
    arrays: Mapping[str, np.ndarray]


def not_finite(
    updates: Sequence[dict[str, Any]], seen: Experience, advantage_B: np.ndarray
) -> Skipped | None:
    """The batch whose loss or gradient is not finite in some update, if it is not."""
    for number, measured in enumerate(updates, 1):
        values = {name: float(measured[name]) for name in ("loss/policy", "grad/norm")}
        if not np.isfinite(list(values.values())).all():
            said = ", ".join(f"{name} is {value}" for name, value in values.items())
            stats = seen.policy or seen.rollout.stats
            more = {"reward": seen.reward, "advantage": advantage_B}
            return Skipped(f"{said} in update {number}", drawn_arrays(seen.rollout, stats, **more))
    return None
