"""One mini-batch of eight completions, as the tests of the update take it."""

import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.grpo import train_batch
from rlif_jax.sharding import put_pieces
from support.packed import packed

B, P, C = 8, 6, 7
SETTINGS = {"temperature": 0.8, "max_new_tokens": 10, "shared": False}


def rollout_and_stats():
    """Eight rows in groups of two that share their prompt, of unequal lengths, and two scorings."""
    rng = np.random.default_rng(3)
    prompt_length = rng.integers(1, P + 1, B // 2)
    length = rng.integers(1, C + 1, B)
    zeros = jnp.zeros((B, C), jnp.float32)
    stats = TokenStats(zeros, zeros, zeros, zeros, zeros)
    rollout = Rollout(
        prompts=Prompts(
            tokens=jnp.asarray(rng.integers(3, 250, (B // 2, P)), jnp.int32),
            mask=jnp.asarray(np.arange(P) >= P - prompt_length[:, None]),
        ),
        tokens=jnp.asarray(rng.integers(3, 250, (B, C)), jnp.int32),
        mask=jnp.asarray(np.arange(C) < length[:, None]),
        stats=stats,
        truncated=jnp.zeros(B, bool),
        length=jnp.asarray(length, jnp.int32),
    )
    old, reference = (
        stats.replace(logprob=jnp.asarray(rng.normal(-5, 1, (B, C)), jnp.float32)) for _ in "or"
    )
    return rollout, old, reference


ADVANTAGE_B = np.random.default_rng(4).normal(size=B).astype(np.float32)


def make_batch(tokens=0, shared=False, **changes):
    """All eight completions in rows of this many columns, on the mesh of `jax.set_mesh`."""
    rollout, old, reference = rollout_and_stats()
    (packing,) = packed(rollout, tokens, shared=shared)
    facts = {
        "old_logprob_BC": np.asarray(old.logprob),
        "sampler_logprob_BC": np.asarray(rollout.stats.logprob),
        "ref_logprob_BC": np.asarray(reference.logprob),
        "trained_B": np.ones(B, bool),
    }
    return put_pieces(train_batch(packing, ADVANTAGE_B, **{**facts, **changes}))
