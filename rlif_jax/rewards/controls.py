"""Rewards that carry no information about the answer, to tell an effect from an artefact.

Random draws depend on `ev.key` alone, and a row's draw on its own index, not on the batch size.
"""

import jax
import jax.numpy as jnp

from rlif_jax.batch import Array, Evidence
from rlif_jax.rewards.registry import reward
from rlif_jax.rewards.verifiable import tests_passed

# Folded into the step's key, so that two controls in one reward draw independently.
_RANDOM, _SHUFFLED = 0, 1


@reward(needs="none")
def random(ev: Evidence) -> Array:
    """Bernoulli(0.5) per row."""
    key = jax.random.fold_in(ev.key, _RANDOM)
    draw = lambda row: jax.random.bernoulli(jax.random.fold_in(key, row))
    return jax.vmap(draw)(jnp.arange(ev.mask.shape[0])).astype(jnp.float32)


@reward(needs="none")
def constant(ev: Evidence) -> Array:
    """1 for every row: what remains is the optimiser (weight decay, KL), not the reward."""
    return jnp.ones(ev.mask.shape[0], jnp.float32)


@reward(needs="exec")
def shuffled(ev: Evidence) -> Array:
    """`tests_passed` permuted across the whole batch: its values without their rows."""
    return jax.random.permutation(jax.random.fold_in(ev.key, _SHUFFLED), tests_passed(ev))


@reward(needs="none")
def length(ev: Evidence) -> Array:
    """Minus the number of tokens of the response."""
    return -ev.mask.sum(axis=1).astype(jnp.float32)
