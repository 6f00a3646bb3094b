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

from rlif_jax import sharding
from rlif_jax.batch import Array, Evidence, Params, Rollout, TokenStats, TrainBatch, TrainState
from rlif_jax.config import Config
from rlif_jax.console.notice import Notice
from rlif_jax.data.prompts import EncodedPrompt
from rlif_jax.grpo import make_optimizer, make_update, seen, train_batches
from rlif_jax.loss.advantages import group_advantages
from rlif_jax.loss.entropy import entropy_coefficient, mean_entropy
from rlif_jax.metrics import execution_metrics, reward_metrics, rollout_metrics
from rlif_jax.packing import Form, Packing, form_of, pack_rollout
from rlif_jax.problem import Problem
from rlif_jax.rewards import combine, needs_execution
from rlif_jax.run.clock import Clock
from rlif_jax.run.log import completion_records
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sample import RowsFinished, make_sample
from rlif_jax.sampler.sync import Sync, make_sync
from rlif_jax.scoring import Score, make_scores
from rlif_jax.submissions import Answers, Submissions

Sample = Callable[
    [Any, Sequence[Sequence[int]], jax.Array, RowsFinished | None], tuple[Rollout, Usage]
]
Update = Callable[[TrainState, TrainBatch], tuple[TrainState, dict[str, Array], Array]]


@dataclasses.dataclass(frozen=True)
class Stages:
    """The compiled stages of a configuration; scoring and updating compile once for a whole run.

    `sync(params)` lays parameters out for sampling. `sample(params, prompts, key, rows_finished)`
    draws a (Rollout, Usage) of N lists of token ids through `engine`, which holds what it compiles.
    `form` is the shape that each mini-batch of a rollout is packed into.
    `score(params, reference, rollout, packings)` gives Scored. `update(state, batch)` gives the
    next state, using up the old one, its metrics and the log-probabilities before it.
    """

    optimizer: optax.GradientTransformation
    sync: Sync
    engine: Engine
    sample: Sample
    form: Form
    score: Score
    update: Update


def make_stages(cfg: Config, graphdef: nnx.GraphDef, pad_id: int) -> Stages:
    """The stages of a configuration for the model that `graphdef` describes.

    All that trains, plans, measures or compiles ahead of time takes its stages from here, under the
    mesh of `jax.set_mesh` that they are to run on.
    """
    temperature, new_tokens = cfg.sampling.temperature, cfg.sampling.max_new_tokens
    engine = Engine(graphdef, batching=Batching.of(cfg.sampling), temperature=temperature)
    sample = make_sample(
        engine,
        samples_per_prompt=cfg.sampling.samples_per_prompt,
        max_new_tokens=new_tokens,
        pad_id=pad_id,
        max_prompt_tokens=cfg.data.max_prompt_tokens,
    )
    form = packed_form(cfg)
    rewarded_at = cfg.reward.reward_temperature or temperature
    both = (temperature, rewarded_at)
    score = Score(
        at_sampling=make_scores(graphdef, temperatures=(temperature,), shared=form.shared),
        at_both=None
        if rewarded_at == temperature
        else make_scores(graphdef, temperatures=both, shared=form.shared),
        from_sampler=cfg.reward.stats_from == "sampler",
    )
    optimizer = make_optimizer(cfg.optim, cfg.loss.epochs * cfg.loss.mini_batches)
    update = make_update(
        graphdef,
        optimizer,
        cfg.loss,
        temperature=temperature,
        max_new_tokens=new_tokens,
        shared=form.shared,
    )
    return Stages(optimizer, make_sync(graphdef), engine, sample, form, score, update)


def packed_form(cfg: Config) -> Form:
    """The shape of every mini-batch, on the mesh of `jax.set_mesh`.

    Prompts are shared on CPUs, where it saves work; kernels of accelerators want whole sequences.
    """
    shared = cfg.loss.shared_prompts
    completions = cfg.data.prompts_per_step * cfg.sampling.samples_per_prompt
    return form_of(
        completions=completions // cfg.loss.mini_batches,
        longest=cfg.longest_row,
        tokens=cfg.row_tokens,
        rows=sharding.row_shards(),
        shared=sharding.platform() == "cpu" if shared is None else shared,
        multiple=sharding.axis_size("context"),
    )


@struct.dataclass
class StepRecord:
    """All that metrics.jsonl and rollouts/ show of a step; one `jax.device_get` brings it over.

    `reward`, `advantage` and every term are [B]. `policy` [B, C] are the statistics before the
    updates in the trainer's numerics, None where the sampler's were used. `updates` are the metrics
    of each optimiser update. `packings` say where completions stood in the mini-batches.
    """

    rollout: Rollout
    policy: TokenStats | None
    reward: Array
    terms: dict[str, Array]
    advantage: Array
    updates: list[dict[str, Any]]
    packings: list[Packing] = struct.field(pytree_node=False)
    answers: Answers = struct.field(pytree_node=False)
    usage: Usage = struct.field(pytree_node=False)

    def metrics(self, cfg: Config) -> dict[str, float]:
        """The metrics of the step but for its times; `self` is on the host."""
        updates, outcomes = self.updates, self.answers.outcomes
        return {
            **reward_metrics(
                self.reward, self.terms, cfg.sampling.samples_per_prompt, cfg.loss.std_floor
            ),
            **{name: float(np.mean([m[name] for m in updates])) for name in updates[0]},
            # Of the first update, which alone starts from the policy that has sampled.
            "drift/sampler_logprob": float(updates[0]["drift/sampler_logprob"]),
            **rollout_metrics(
                self.rollout.stats if self.policy is None else self.policy,
                self.rollout.mask,
                self.rollout.truncated,
                self.answers.texts,
                max_new_tokens=cfg.sampling.max_new_tokens,
                sampler_stats=None if self.policy is None else self.rollout.stats,
            ),
            **({} if outcomes is None else execution_metrics(outcomes)),
            "throughput/slot_use": self.usage.useful / self.usage.slot_steps,
            "throughput/column_use": self.trained_tokens / sum(p.columns for p in self.packings),
        }

    @property
    def trained_tokens(self) -> int:
        """Tokens that an epoch trains on, those of prompts included."""
        return sum(packing.filled for packing in self.packings)

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

    `state` is used up. `reference` are the trained parameters as the run started, or None without a
    KL term. `notice(text)` is called with each phase and may raise to stop before the state is
    used.
    """
    sample_key, reward_key = jax.random.split(key)
    selection_key = jax.random.fold_in(key, 2)
    tokens, group_size = [prompt.tokens for prompt in prompts], cfg.sampling.samples_per_prompt
    with clock("sync"):
        decode_params = jax.block_until_ready(stages.sync(state.params))
    with clock("sample"):
        notice("sampling")
        rollout, usage = stages.sample(decode_params, tokens, sample_key, submissions.finished)
        del decode_params
    with clock("score"):  # programs handed in while sampling are being tested meanwhile
        notice("scoring")
        packings = pack_rollout(rollout, stages.form, cfg.loss.mini_batches)
        scored = stages.score(state.params, reference, rollout, packings)
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
    with clock("update"):
        notice("updating")
        entropy = mean_entropy(scored.policy or rollout.stats, rollout.mask)
        coefficient = entropy_coefficient(jax.device_get(state.entropy_coef), entropy, cfg.loss)
        batches = train_batches(
            packings, rollout, advantage_B, scored, cfg.loss, coefficient.applied, selection_key
        )
        updates = []
        for _ in range(cfg.loss.epochs):
            for i, batch in enumerate(batches):
                state, measured, logprob_MRT = stages.update(state, batch)
                updates.append(measured)
                batches[i] = seen(batch, logprob_MRT)
        state = dataclasses.replace(state, step=state.step + 1, entropy_coef=coefficient.following)
        updates = jax.device_get(updates)
    with clock("record"):
        record = StepRecord(
            rollout=rollout,
            policy=scored.policy,
            reward=reward_B,
            terms=terms,
            advantage=advantage_B,
            updates=updates,
            packings=packings,
            answers=answers,
            usage=usage,
        )
        return state, jax.device_get(record)
