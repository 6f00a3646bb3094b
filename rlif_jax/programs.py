"""The compiled programs of a run, chosen by its configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax

from rlif_jax.batch import Array, Rollout, TokenStats, TrainBatch, TrainState
from rlif_jax.config import Config
from rlif_jax.data.prompts import EncodedPrompt, PromptOptions, pad_prompts, pose
from rlif_jax.grpo import make_optimizer, make_update, mini_batches
from rlif_jax.problem import Problem
from rlif_jax.sampler.engine import Usage
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sample import RowsFinished, make_sample
from rlif_jax.sampler.sync import Sync, make_sync
from rlif_jax.scoring import make_score, make_scores


@dataclass(frozen=True)
class Scores:
    """TokenStats [B, C] of one rollout, float32.

    `policy` at the sampling temperature, `reward` at the reward temperature (often the same
    object), `reference` under the starting model, or None without a KL term.
    """

    policy: TokenStats
    reward: TokenStats
    reference: TokenStats | None


@dataclass(frozen=True)
class Programs:
    """What a step calls. Each compiles once for each shape of its input.

    `pose(problem)` gives its prompt; `sync(params)` the parameters to sample with;
    `sample(params, prompts, key, rows_finished, usage)` a Rollout as wide as its longest
    completion; `score(params, reference, rollout)` Scores; `update(state, batch)` the new state
    (the old one is used up) and the metrics of every optimiser update.
    """

    optimizer: optax.GradientTransformation
    pose: Callable[[Problem], EncodedPrompt]
    sync: Sync
    sample: Callable[[Any, Sequence[EncodedPrompt], Array, RowsFinished, Usage], Rollout]
    score: Callable[[Any, Any, Rollout], Scores]
    update: Callable[[TrainState, TrainBatch], tuple[TrainState, list[dict[str, Any]]]]


def make_programs(cfg: Config, graphdef: Any, tokenizer: Any) -> Programs:
    """The programs of a configuration for the model that `graphdef` describes."""
    options = PromptOptions.of(cfg.data)
    optimizer = make_optimizer(cfg.optim, cfg.loss.epochs * cfg.loss.mini_batches)
    return Programs(
        optimizer=optimizer,
        pose=lambda problem: pose(tokenizer, problem, options),
        sync=make_sync(graphdef),
        sample=_sampling(cfg, graphdef, tokenizer.pad_token_id),
        score=_scoring(cfg, graphdef),
        update=_updating(cfg, graphdef, optimizer),
    )


def _sampling(cfg: Config, graphdef: Any, pad_id: int):
    draw = make_sample(
        graphdef,
        samples_per_prompt=cfg.sampling.samples_per_prompt,
        temperature=cfg.sampling.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
        pad_id=pad_id,
        batching=Batching.of(cfg.sampling),
        max_prompt_tokens=cfg.data.max_prompt_tokens,
        bucket=cfg.sampling.bucket,
    )

    def sample(params, prompts, key, rows_finished, usage):
        tokens = [prompt.tokens for prompt in prompts]
        padded = pad_prompts(tokens, pad_id, cfg.data.prompt_bucket)
        return draw(params, padded, key, rows_finished, usage)

    return sample


def _scoring(cfg: Config, graphdef: Any):
    sampled_at = cfg.sampling.temperature
    rewarded_at = cfg.reward.reward_temperature or sampled_at
    # As many pieces as the update has, so that scoring never needs more memory than training.
    pieces = cfg.loss.mini_batches * cfg.loss.micro_batches
    layout = {"samples_per_row": cfg.samples_per_row, "micro_batches": pieces}
    at_sampling = make_score(graphdef, temperature=sampled_at, **layout)
    at_both = make_scores(graphdef, temperatures=(sampled_at, rewarded_at), **layout)

    def score(params, reference, rollout):
        if cfg.reward.stats_from == "sampler":
            policy = reward = rollout.stats
        elif rewarded_at == sampled_at:
            policy = reward = at_sampling(params, rollout)
        else:
            policy, reward = at_both(params, rollout)
        anchor = None if reference is None else at_sampling(reference, rollout)
        return Scores(*jax.block_until_ready((policy, reward, anchor)))

    return score


def _updating(cfg: Config, graphdef: Any, optimizer: optax.GradientTransformation):
    one_update = make_update(
        graphdef,
        optimizer,
        cfg.loss,
        temperature=cfg.sampling.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
    )

    def update(state, batch):
        metrics = []
        for mini in mini_batches(batch, cfg.loss):
            state, measured = one_update(state, mini)
            metrics.append(measured)
        return state.replace(step=state.step + 1), jax.device_get(metrics)

    return update
