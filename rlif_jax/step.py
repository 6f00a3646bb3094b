"""The training step: every arrow of the flow, and the compiled stages it runs through.

    Problem -> Prompts -> Rollout -> Evidence -> reward_B -> TrainBatch -> TrainState

This is the page to start reading. It is not the life of a run (train.py), nor the mathematics:
rewards/ turn Evidence into rewards, loss/ has the loss, grpo.py the gradient and the update.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx, struct

from rlif_jax.batch import Array, Evidence, Params, Rollout, TokenStats, TrainBatch, TrainState
from rlif_jax.config import Config
from rlif_jax.console.notice import Notice
from rlif_jax.data.prompts import EncodedPrompt
from rlif_jax.grpo import make_optimizer, make_update, mini_batches, train_batch
from rlif_jax.loss.advantages import group_advantages
from rlif_jax.metrics import execution_metrics, reward_metrics, rollout_metrics
from rlif_jax.problem import Problem
from rlif_jax.rewards import combine, needs_execution
from rlif_jax.run.clock import Clock
from rlif_jax.run.log import completion_records
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sample import RowsFinished, make_sample
from rlif_jax.sampler.sync import Sync, make_sync
from rlif_jax.scoring import Score, make_score, make_scores
from rlif_jax.submissions import Answers, Submissions


@dataclasses.dataclass(frozen=True)
class Stages:
    """The compiled stages of a configuration; each compiles once for each shape of its input.

    `sync(params)` lays parameters out for sampling. `sample(params, prompts, key, rows_finished)`
    draws a (Rollout, Usage) of N lists of token ids through `engine`, which holds what it compiles.
    `score(params, reference, rollout)` gives Scored. `update(state, mini_batch)` gives the next
    state, using up the old one, and its metrics.
    """

    optimizer: optax.GradientTransformation
    sync: Sync
    engine: Engine
    sample: Callable[
        [Any, Sequence[Sequence[int]], jax.Array, RowsFinished | None], tuple[Rollout, Usage]
    ]
    score: Score
    update: Callable[[TrainState, TrainBatch], tuple[TrainState, dict[str, Array]]]


def make_stages(cfg: Config, graphdef: nnx.GraphDef, pad_id: int) -> Stages:
    """The stages of a configuration for the model that `graphdef` describes.

    All that trains, plans, measures or compiles ahead of time takes its stages from here.
    """
    temperature, new_tokens = cfg.sampling.temperature, cfg.sampling.max_new_tokens
    engine = Engine(graphdef, batching=Batching.of(cfg.sampling), temperature=temperature)
    sample = make_sample(
        engine,
        samples_per_prompt=cfg.sampling.samples_per_prompt,
        max_new_tokens=new_tokens,
        pad_id=pad_id,
        max_prompt_tokens=cfg.data.max_prompt_tokens,
        prompt_bucket=cfg.data.prompt_bucket,
        bucket=cfg.sampling.bucket,
    )
    rewarded_at = cfg.reward.reward_temperature or temperature
    # As many pieces as the update has, so that scoring never needs more memory than training.
    pieces = cfg.loss.mini_batches * cfg.loss.micro_batches
    layout = {"samples_per_row": cfg.samples_per_row, "micro_batches": pieces}
    score = Score(
        at_sampling=make_score(graphdef, temperature=temperature, **layout),
        at_both=None
        if rewarded_at == temperature
        else make_scores(graphdef, temperatures=(temperature, rewarded_at), **layout),
        from_sampler=cfg.reward.stats_from == "sampler",
    )
    optimizer = make_optimizer(cfg.optim, cfg.loss.epochs * cfg.loss.mini_batches)
    update = make_update(
        graphdef, optimizer, cfg.loss, temperature=temperature, max_new_tokens=new_tokens
    )
    return Stages(optimizer, make_sync(graphdef), engine, sample, score, update)


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
    answers: Answers = struct.field(pytree_node=False)
    usage: Usage = struct.field(pytree_node=False)

    def metrics(self, cfg: Config) -> dict[str, float]:
        """The metrics of the step but for its times; `self` is on the host."""
        first, outcomes = self.updates[0], self.answers.outcomes
        values = {
            **reward_metrics(
                self.reward, self.terms, cfg.sampling.samples_per_prompt, cfg.loss.std_floor
            ),
            **rollout_metrics(
                self.policy,
                self.rollout.mask,
                self.rollout.truncated,
                self.answers.texts,
                max_new_tokens=cfg.sampling.max_new_tokens,
                sampler_stats=None if self.policy_is_sampler else self.rollout.stats,
            ),
            **({} if outcomes is None else execution_metrics(outcomes)),
            **{name: float(np.mean([m[name] for m in self.updates])) for name in first},
            "throughput/slot_use": self.usage.useful / self.usage.slot_steps,
        }
        if self.policy_is_sampler:  # the update has seen the trainer's before it changed them
            values["drift/sampler_logprob"] = float(first["loss/old_distance"])
        return values

    def completions(
        self, problems: Sequence[Problem], prompts: Sequence[EncodedPrompt]
    ) -> list[dict[str, Any]]:
        """A record of each completion of these N problems, in row order; `self` is on the host."""
        return completion_records(
            problems,
            [prompt.text for prompt in prompts],
            self.answers.texts,
            self.answers.codes,
            reward=self.reward,
            terms=self.terms,
            advantage=self.advantage,
            outcomes=self.answers.outcomes,
            length=self.rollout.length,
            truncated=self.rollout.truncated,
        )

    def tokens(self, samples_per_row: int) -> tuple[int, int]:
        """Tokens sampled, and tokens trained on: each row repeats its prompt once."""
        sampled, prompts = self.rollout.length, self.rollout.prompts
        copies = len(sampled) // len(prompts.mask) // samples_per_row
        return int(sampled.sum()), int(sampled.sum() + copies * prompts.mask.sum())


def train_step(
    cfg: Config,
    stages: Stages,
    state: TrainState,
    reference: Params | None,
    prompts: Sequence[EncodedPrompt],
    key: jax.Array,
    submissions: Submissions,
    clock: Clock,
    notice: Notice,
) -> tuple[TrainState, StepRecord]:
    """Prompts in; the next state, and on the host the record of the step, out.

    `state` is used up. `reference` are the starting model's parameters, or None without a KL term.
    `notice(text)` is called with each phase and may raise to stop before the state is used.
    """
    sample_key, reward_key = jax.random.split(key)
    tokens, group_size = [prompt.tokens for prompt in prompts], cfg.sampling.samples_per_prompt
    with clock("sync"):
        decode_params = jax.block_until_ready(stages.sync(state.params))
    with clock("sample"):
        notice("sampling")
        rollout, usage = stages.sample(decode_params, tokens, sample_key, submissions.finished)
        del decode_params
    with clock("score"):  # programs handed in while sampling are being tested meanwhile
        notice("scoring")
        scored = stages.score(state.params, reference, rollout)
    with clock("execute"):
        answers = submissions.collect()
    with clock("reward"):
        evidence = Evidence(
            stats=scored.reward,
            mask=rollout.mask,
            truncated=rollout.truncated,
            key=reward_key,
            group_size=group_size,
            outcomes=answers.outcomes if needs_execution(cfg.reward) else None,
            max_new_tokens=cfg.sampling.max_new_tokens,
        )
        reward_B, terms = combine(cfg.reward, evidence, cfg.loss.std_floor)
        advantage_B = group_advantages(reward_B, group_size, cfg.loss.advantage, cfg.loss.std_floor)
        batch = train_batch(
            rollout, advantage_B, scored.policy, scored.reference, cfg.samples_per_row
        )
    with clock("update"):
        notice("updating")
        updates = []
        for mini in mini_batches(batch, cfg.loss):
            state, measured = stages.update(state, mini)
            updates.append(measured)
        state = dataclasses.replace(state, step=state.step + 1)
        updates = jax.device_get(updates)
    with clock("record"):
        record = StepRecord(
            rollout=rollout,
            policy=scored.policy,
            reward=reward_B,
            terms=terms,
            advantage=advantage_B,
            updates=updates,
            policy_is_sampler=scored.policy is rollout.stats,
            answers=answers,
            usage=usage,
        )
        return state, jax.device_get(record)
