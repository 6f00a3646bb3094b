"""Tokens guessed ahead: what followed the same few tokens last time, in any prompt or sample.

Code repeats itself, its prompt, and the other samples of its problem. A table on the device has,
for every run of up to three tokens that has been seen, the token that came next. It keeps no
sequences and resolves no collisions: a wrong guess costs a row of one decode step and nothing else,
for guesses are checked (see `decode.py`).

Prompt lookup decoding (Saxena 2023) searches a sample's own prompt; sharing one table between all
that is sampled finds more.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from rlif_jax.batch import Array
from rlif_jax.sharding import slot_shards

CONTEXT = 3
"""Tokens that a guess is looked up by; where they are new, the last two, and then the last one."""

ENTRIES = 2**18
"""Of the table of a row shard: 1 MiB."""

NONE = -1
"""No token: in the table, before a text, and as a guess that cannot be right."""


@struct.dataclass
class Drafts:
    """What slots hold beside the rest of `slots.Slots` while W - 1 tokens are guessed ahead.

    `token` int32 [B, W - 1] are the guesses for the tokens after the next one, `x` [B, W - 1, D]
    the hidden states behind them; `recent` int32 [B, CONTEXT] the last tokens of the sequence,
    `NONE` before its first; `passes` int32 [B] the decode steps in which the slot drew. `following`
    int32 [N, ENTRIES] is the table of each row shard.
    """

    token: Array
    x: Array
    recent: Array
    passes: Array
    following: Array


def no_drafts(slots: int, embed: int, dtype: str, count: int) -> Drafts:
    """Nothing seen yet, and `count` tokens to be guessed, on the mesh of `jax.set_mesh`."""
    return Drafts(
        token=jnp.full((slots, count), NONE, jnp.int32),
        x=jnp.zeros((slots, count, embed), dtype),
        recent=jnp.full((slots, CONTEXT), NONE, jnp.int32),
        passes=jnp.zeros(slots, jnp.int32),
        following=jnp.full((slot_shards(), ENTRIES), NONE, jnp.int32),
    )


def fed(
    d: Drafts, token_BW: Array, kept_B: Array, live_B: Array, guessable_BW: Array
) -> tuple[Array, Drafts]:
    """What goes into the cache next, [B, W]: the last token kept, and guesses behind it or `NONE`.

    Of the tokens that live slots have drawn the first `kept_B` are kept, and learnt. `guessable_BW`
    bool [B, W - 1] says where a guess may stand.
    """
    (B, W), N = token_BW.shape, len(d.following)
    text_BT = jnp.concatenate([d.recent, token_BW], axis=1)
    valid_BT = (jnp.arange(CONTEXT + W) < CONTEXT + kept_B[:, None]) & live_B[:, None]
    text_NCT, valid_NCT = (x_BT.reshape(N, B // N, -1) for x_BT in (text_BT, valid_BT))
    following_NE = learn(d.following, text_NCT, valid_NCT)
    recent_BR = jnp.take_along_axis(text_BT, kept_B[:, None] + jnp.arange(CONTEXT), axis=1)
    recent_BR = jnp.where(live_B[:, None], recent_BR, d.recent)
    guess_BW = guess(following_NE, recent_BR, W - 1)
    guess_BW = jnp.where(guessable_BW & live_B[:, None], guess_BW, NONE)
    drafts = replace(
        d, token=guess_BW, recent=recent_BR, passes=d.passes + live_B, following=following_NE
    )
    return jnp.concatenate([recent_BR[:, -1:], guess_BW], axis=1), drafts


def learn(following_NE: Array, text_NCT: Array, valid_NCT: Array) -> Array:
    """The table with all that follows something in `text_NCT`: C texts of T tokens for each shard.

    The first CONTEXT columns are context; a later column is learnt where it is valid.
    """
    T = text_NCT.shape[-1]
    context_NCTR = jnp.stack([text_NCT[..., i : T - CONTEXT + i] for i in range(CONTEXT)], -1)
    valid_NCT = valid_NCT[..., CONTEXT:]

    def of_shard(following_E, context_CTR, token_CT, valid_CT):
        for at_CT in _places(context_CTR):
            # Beyond the end, what is written is dropped.
            at_CT = jnp.where(valid_CT, at_CT, ENTRIES)
            following_E = following_E.at[at_CT].set(token_CT, mode="drop")
        return following_E

    return jax.vmap(of_shard)(following_NE, context_NCTR, text_NCT[..., CONTEXT:], valid_NCT)


def guess(following_NE: Array, recent_BR: Array, count: int) -> Array:
    """The next `count` tokens of each slot, int32 [B, count]; NONE from where nothing is known."""
    N, B = following_NE.shape[0], recent_BR.shape[0]
    recent_NCR = recent_BR.reshape(N, B // N, CONTEXT)
    guesses = []
    for _ in range(count):
        token_NC = jnp.full(recent_NCR.shape[:2], NONE, jnp.int32)
        for at_NC in reversed(_places(recent_NCR)):  # the longest context decides
            known_NC = jnp.take_along_axis(following_NE, at_NC, axis=1)
            token_NC = jnp.where(token_NC < 0, known_NC, token_NC)
        token_NC = jnp.where(recent_NCR[..., -1] < 0, NONE, token_NC)
        guesses.append(token_NC)
        recent_NCR = jnp.concatenate([recent_NCR[..., 1:], token_NC[..., None]], axis=-1)
    return jnp.stack(guesses, axis=-1).reshape(B, count)


def _places(context_R: Array) -> list[Array]:
    """Where the table has what follows the last 1, 2, ... CONTEXT tokens [..., CONTEXT]."""
    number, places = jnp.zeros(context_R.shape[:-1], jnp.uint32), []
    for i in range(1, CONTEXT + 1):
        # A multiplicative hash (Knuth, TAOCP 6.4): its upper bits depend on all tokens.
        token = context_R[..., -i].astype(jnp.uint32)
        number = (number ^ (token + jnp.uint32(i))) * jnp.uint32(2654435761)
        number = number ^ (number >> 15)
        places.append((number >> (32 - (ENTRIES - 1).bit_length())).astype(jnp.int32))
    return places
