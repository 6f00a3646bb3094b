"""Rollouts packed and scored as a training step does it."""

import jax
import numpy as np

from rlif_jax import sharding
from rlif_jax.batch import Rollout, TokenStats
from rlif_jax.config import Config
from rlif_jax.grpo import train_batches
from rlif_jax.packing import Packing, form_of, pack_rollout
from rlif_jax.scoring import Score, make_scores
from rlif_jax.step import Stages


def packed(
    rollout: Rollout, tokens: int = 0, *, shared: bool = False, mini_batches: int = 1
) -> list[Packing]:
    """Each mini-batch in rows of `tokens` columns, at least of one sequence, on the mesh."""
    B, C = rollout.tokens.shape
    form = form_of(
        completions=B // mini_batches,
        longest=rollout.prompts.tokens.shape[1] + C - 1,
        tokens=tokens,
        rows=sharding.row_shards(),
        shared=shared,
        multiple=sharding.axis_size("context"),
    )
    return pack_rollout(rollout, form, mini_batches)


def scored(
    graphdef, params, rollout: Rollout, temperature: float, tokens: int = 0, shared: bool = False
) -> TokenStats:
    """TokenStats [B, C] of the completions, zeros behind their ends."""
    scores = make_scores(graphdef, temperatures=(temperature,), shared=shared)
    score = Score(scores, None, from_sampler=False)
    return score.certainty(params, rollout, lambda one: packed(one, tokens, shared=shared))[1]


def batches_of(stages: Stages, cfg: Config, params, rollout: Rollout, advantage_B, reference=None):
    """The mini-batches of a step that has drawn this rollout, scored as `train_step` does it."""
    packings, C = stages.pack(rollout), rollout.tokens.shape[1]
    policy, _ = stages.score.certainty(params, rollout, stages.pack)
    old_logprobs = stages.score.old_logprobs(params, policy, packings, C)
    anchor = None if reference is None else stages.score.reference(reference, packings, C)
    facts = (advantage_B, old_logprobs, anchor, cfg.loss, 0.0, jax.random.key(0))
    return train_batches(packings, rollout, *facts)


def assert_close(got, want, **tolerance) -> None:
    """Leaf by leaf."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), got, want)
