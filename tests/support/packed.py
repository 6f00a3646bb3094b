"""Rollouts packed and scored as a training step does it."""

import jax
import numpy as np

from rlif_jax import sharding
from rlif_jax.batch import Rollout, TokenStats
from rlif_jax.packing import Packing, form_of, pack_rollout
from rlif_jax.scoring import Score, make_scores


def packed(
    rollout: Rollout, tokens: int = 0, *, shared: bool = False, mini_batches: int = 1
) -> list[Packing]:
    """Each mini-batch in rows of `tokens` columns, at least one sequence's, for the present mesh."""
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
    return score(params, None, rollout, packed(rollout, tokens, shared=shared)).policy


def assert_close(got, want, **tolerance) -> None:
    """Leaf by leaf."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), got, want)
