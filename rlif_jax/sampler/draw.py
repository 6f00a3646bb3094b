"""Drawing one token per row, without sorting the vocabulary."""

import jax
import jax.numpy as jnp

_BLOCK = 256


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """One key per row, [rows]; a row's key depends on `key` and its index only."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))


def draw(z_BV: jax.Array, key_B: jax.Array, t: jax.Array) -> jax.Array:
    """Draw column t of every row from softmax(z), int32 [B].

    Inverse transform with one uniform number per row, found in two levels: first the block of 256
    entries in which the cumulative mass passes it, then the entry. Costs one pass over the
    vocabulary, where a Gumbel argmax draws V random numbers per row.

    z_BV: float32 logits already divided by the temperature; -inf entries are never drawn.
    key_B: one key per row; t: the column, folded into the keys.
    """
    B, V = z_BV.shape
    blocks = -(-V // _BLOCK)
    mass_BV = jnp.exp(z_BV - jnp.max(z_BV, axis=-1, keepdims=True))
    mass_BNK = jnp.pad(mass_BV, ((0, 0), (0, blocks * _BLOCK - V))).reshape(B, blocks, _BLOCK)
    uniform_B = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, t)))(key_B)

    block_mass_BN = mass_BNK.sum(axis=-1)
    total_B = block_mass_BN.sum(axis=-1)
    block_B, rest_B = _locate(block_mass_BN, uniform_B * total_B)
    inside_BK = jnp.take_along_axis(mass_BNK, block_B[:, None, None], axis=1)[:, 0]
    entry_B, _ = _locate(inside_BK, rest_B)
    return block_B * _BLOCK + entry_B


def _locate(mass_BN: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The entry at which the running sum first exceeds the target, and what is left of the target.

    Rounding may leave the target at or beyond the last sum: then the last entry with mass is taken.
    """
    upto_BN = jnp.cumsum(mass_BN, axis=-1)
    past_BN = (upto_BN > target_B[:, None]) & (mass_BN > 0)
    last_B = mass_BN.shape[-1] - 1 - jnp.argmax(mass_BN[:, ::-1] > 0, axis=-1)
    index_B = jnp.where(past_BN.any(axis=-1), jnp.argmax(past_BN, axis=-1), last_B)
    here_B = jnp.take_along_axis(mass_BN, index_B[:, None], axis=-1)[:, 0]
    before_B = jnp.take_along_axis(upto_BN, index_B[:, None], axis=-1)[:, 0] - here_B
    return index_B.astype(jnp.int32), jnp.clip(target_B - before_B, 0.0, here_B)
