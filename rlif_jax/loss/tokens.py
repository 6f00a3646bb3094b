"""What the policy loss reads of the tokens of a piece."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from rlif_jax.batch import Array


@struct.dataclass
class LossTokens:
    """Completion tokens in rows that may hold several completions, every array [R, T].

    `logprob` and `entropy` are those of the current policy, in nats, and carry gradients.
    `old_logprob` is that of the policy before the step's updates; None where the update is the
    step's only one, so that the old policy is the current one. `ref_logprob` is that of the
    reference, `sampler_logprob` that with which the sampler drew the token; each None where the
    loss does not read it. `advantage` is float32, `mask` bool: the tokens to train on.

    `segment` int32 numbers the completions of a row: the tokens of a completion share row and
    segment, from 1 to T. `length` float32 counts the tokens of the token's completion. `selected`
    bool is `covariance_selection`'s, None for variants that select no tokens.

    Entries outside the mask may hold anything, NaN included.
    """

    logprob: Array
    entropy: Array
    advantage: Array
    mask: Array
    segment: Array
    length: Array
    old_logprob: Array | None = None
    ref_logprob: Array | None = None
    sampler_logprob: Array | None = None
    selected: Array | None = None


def within_mask(tokens: LossTokens) -> LossTokens:
    """The same tokens ready for arithmetic: float32, 0 outside the mask (`length` 1).

    Neither values nor gradients see what the mask leaves out. Gradients pass through `logprob` and
    `entropy` only.
    """
    valid = lambda x_RT: jnp.where(tokens.mask, x_RT, 0.0).astype(jnp.float32)
    fixed = lambda x_RT: lax.stop_gradient(valid(x_RT))
    given = lambda x_RT: None if x_RT is None else fixed(x_RT)
    return dataclasses.replace(
        tokens,
        logprob=valid(tokens.logprob),
        entropy=valid(tokens.entropy),
        advantage=fixed(tokens.advantage),
        segment=jnp.where(tokens.mask, tokens.segment, 0),
        length=jnp.where(tokens.mask, tokens.length, 1.0).astype(jnp.float32),
        old_logprob=given(tokens.old_logprob),
        ref_logprob=given(tokens.ref_logprob),
        sampler_logprob=given(tokens.sampler_logprob),
        selected=None if tokens.selected is None else tokens.selected & tokens.mask,
    )


def completion_mean(x_RT: Array, tokens: LossTokens) -> Array:
    """At each token the mean of x over the tokens of its completion; `tokens` are `within_mask`."""
    buckets = x_RT.shape[-1] + 1  # a segment number is at most T

    def one_row(x_T: Array, segment_T: Array) -> jax.Array:
        return jax.ops.segment_sum(x_T, segment_T, num_segments=buckets)[segment_T]

    return jax.vmap(one_row)(x_RT, tokens.segment) / tokens.length
