"""Which columns of a row see each other."""

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array


@struct.dataclass
class Segments:
    """The sequences that stand side by side in rows, int32 [R, T].

    `own` numbers the sequences of a row: it never decreases from left to right, and 0 is an empty
    column. `prefix` is the segment of the prompt that a column's sequence continues, which stands
    further left in the row, or the column's own segment; None says that no sequence continues
    another. `single` says that every row holds one sequence, in adjacent columns.
    """

    own: Array
    prefix: Array | None = None
    single: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def of(cls, mask_RT: Array) -> "Segments":
        """One sequence a row, in the adjacent columns where `mask_RT` is true."""
        return cls(mask_RT.astype(jnp.int32), single=True)

    @property
    def prefix_or_own(self) -> Array:
        """`prefix`, or the columns' own segments where no sequence continues another."""
        return self.own if self.prefix is None else self.prefix


def whole_blocks(x_RT: Array, block: int) -> Array:
    """An array [R, T, ...] with zeros behind its columns, up to a whole number of blocks."""
    more = (0, -x_RT.shape[1] % block)
    return jnp.pad(x_RT, ((0, 0), more, *((0, 0),) * (x_RT.ndim - 2)))


def visible(
    own_RQ: Array, prefix_RQ: Array, own_RS: Array, column_Q: Array, column_S: Array
) -> Array:
    """Whether a query in column q sees the key in column s, bool [R, Q, S].

    It does iff s <= q, the key's column is not empty, and the key is of the query's own segment or
    of its prefix.
    """
    key_R1S = own_RS[:, None, :]
    related = (key_R1S == own_RQ[:, :, None]) | (key_R1S == prefix_RQ[:, :, None])
    return related & (key_R1S != 0) & (column_S[None, :] <= column_Q[:, None])


def needed_blocks(own_RT: Array, wanted_RT: Array, block: int) -> Array:
    """Which blocks of keys hold what queries want, bool [R, J query blocks, J key blocks].

    A query wants the keys of segment `wanted_RT`, 0 for none, up to its own column; T is a multiple
    of `block`. Numbers of segments never decrease along a row, so a block holds a segment only if
    that lies between the least and the greatest of the block.
    """
    R, T = own_RT.shape
    J = T // block
    own_RJb = own_RT.reshape(R, J, block)
    first_RJ = jnp.where(own_RJb == 0, jnp.iinfo(jnp.int32).max, own_RJb).min(axis=-1)
    last_RJ = own_RJb.max(axis=-1)
    wanted_RT1 = wanted_RT[:, :, None]
    held_RTJ = (first_RJ[:, None] <= wanted_RT1) & (wanted_RT1 <= last_RJ[:, None])
    return held_RTJ.reshape(R, J, block, J).any(axis=2) & jnp.tri(J, dtype=bool)
