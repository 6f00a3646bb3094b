"""Drawing one token per row, without sorting the vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np

from rlif_jax.errors import UserError
from rlif_jax.sharding import parts_of

_BLOCK = 256

KEY_KIND = "threefry2x32"
"""The kind of PRNG whose numbers do not depend on how many keys are used at once."""


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """One key per row, [rows]; a row's key depends on `key` and its index only."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))


def key_data(key: jax.Array) -> np.ndarray:
    """The numbers that make up keys of KEY_KIND, uint32 [..., 2], on the host.

    Raises:
        UserError: the keys are of another kind.
    """
    if str(kind := jax.random.key_impl(key)) != KEY_KIND:
        raise UserError(
            f"sampling needs keys of kind {KEY_KIND}, and these are of {kind}; make them with "
            f"jax.random.key(seed, impl={KEY_KIND!r}), or unset jax_default_prng_impl"
        )
    return np.asarray(jax.random.key_data(key))


def draw(z_BV: jax.Array, key_B: jax.Array, t: jax.Array) -> jax.Array:
    """Draw completion token t of every row from softmax(z), int32 [B].

    Inverse transform with one uniform number per row, found in two levels: first the block of 256
    entries in which the cumulative mass passes it, then the entry. Costs one pass over the
    vocabulary, where a Gumbel argmax draws V random numbers per row.

    z_BV: float32 logits already divided by the temperature; -inf entries are never drawn.
    key_B: one key per row; t: int32 [] or [B], folded into the keys.
    """
    B, V = z_BV.shape
    # No block reaches over the end of a device's part of the vocabulary, or it would be gathered.
    parts = parts_of("vocab", V)
    part = V // parts
    blocks = -(-part // _BLOCK)
    mass_BV = jnp.exp(z_BV - jnp.max(z_BV, axis=-1, keepdims=True))
    mass_BPV = jnp.pad(
        mass_BV.reshape(B, parts, part), ((0, 0), (0, 0), (0, blocks * _BLOCK - part))
    )
    mass_BNK = mass_BPV.reshape(B, parts * blocks, _BLOCK)
    t_B = jnp.broadcast_to(t, (B,))
    uniform_B = jax.vmap(lambda k, t: jax.random.uniform(jax.random.fold_in(k, t)))(key_B, t_B)

    block_mass_BN = mass_BNK.sum(axis=-1)
    total_B = block_mass_BN.sum(axis=-1)
    block_B, rest_B = _locate(block_mass_BN, uniform_B * total_B)
    inside_BK = jnp.take_along_axis(mass_BNK, block_B[:, None, None], axis=1)[:, 0]
    entry_B, _ = _locate(inside_BK, rest_B)
    return block_B // blocks * part + block_B % blocks * _BLOCK + entry_B


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
