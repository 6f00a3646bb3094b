"""Digests of arrays, computed where the arrays are: equal numbers have equal digests on any mesh.

A digest says whether two arrays hold the same bits in the same places. It finds faults, such as a
flipped bit, two numbers swapped, or -0.0 for 0.0. It does not stop somebody who wants two arrays to
have one digest: it is no cryptographic hash.

Each number's bits are combined with its place and mixed by the finaliser of MurmurHash3 (Austin
Appleby, public domain); the results are added modulo 2^32. Sums of integers do not depend on their
order, so neither the sharding nor the number of devices matters. Two sums with different constants
make up the 64 bits.

A digest costs one read of its array. For float32 that is 4 bytes a number, 0.16 ms for each
135 million of them at the 3.35 TB/s of an H100.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding

from rlif_jax.model.per_layer import PerLayer
from rlif_jax.sharding import replicated

PLACES = 1 << 32
"""Numbers whose places 32 bits can tell apart; a larger array has leading axes of its own word."""

LANES = ((0x9E3779B1, 0x85EBCA77, 0x27220A95), (0xC2B2AE3D, 0x165667B1, 0x6C62272E))
"""For each of the two sums: odd multipliers of the place and of its high word, and an offset."""


def digests(tree: Any, types: Mapping[str, Any] = {}) -> dict[str, str]:
    """16 hexadecimal digits for each array of a pytree, by its path with dots: `layers.q`.

    Parameters have the names that `weights.parameters.named` gives them. Arrays of 8, 16 or 32 bits
    and PRNG keys, on devices or in NumPy. `types` names arrays whose digest is wanted as if they
    were cast to a type; no copy is made. Under several processes every one of them calls this and
    gets the same digests.

    Raises:
        TypeError: an array of another type.
    """
    arrays = {name: _plain(x) for name, x in by_path(tree).items()}
    if not arrays:
        return {}
    wanted = [jnp.dtype(types.get(name, x.dtype)) for name, x in arrays.items()]
    for name, dtype in zip(arrays, wanted, strict=True):
        if dtype.itemsize not in (1, 2, 4) or dtype.kind == "c":
            raise TypeError(f"{name} is {dtype}; digests are of numbers of 8, 16 or 32 bits")
    sums = np.asarray(make_sums(_everywhere(arrays), tuple(wanted))(list(arrays.values())))
    return {name: f"{a:08x}{b:08x}" for name, (a, b) in zip(arrays, sums.tolist(), strict=True)}


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their paths with dots; a parameter per layer is one of them.

    Flax's own step, from a variable to its array, is left out.
    """

    def whole(x: Any) -> bool:
        return isinstance(x, PerLayer)

    def name(path: tuple[Any, ...]) -> str:
        path = tuple(step for step in path if step != jax.tree_util.GetAttrKey("value"))
        return jax.tree_util.keystr(path, simple=True, separator=".")

    return {name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree, whole)}


def digest_of(digests: Mapping[str, str]) -> str:
    """One digest of 16 hexadecimal digits for a whole mapping: its names and their digests."""
    lines = "\n".join(f"{name} {digests[name]}" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


@functools.cache
def make_sums(place: Sharding | None, types: tuple[Any, ...]) -> Callable[[list[Any]], jax.Array]:
    """Build `sums(arrays) -> uint32 [arrays, 2]` of arrays as these types, compiled as one.

    The result is at `place`.
    """

    def sums(arrays: list[Any]) -> jax.Array:
        whole = [x.joined() if isinstance(x, PerLayer) else jnp.asarray(x) for x in arrays]
        return jnp.stack([mixed_sums(x.astype(t)) for x, t in zip(whole, types, strict=True)])

    return jax.jit(sums, out_shardings=place)


def mixed_sums(x: Any, places: int = PLACES) -> jax.Array:
    """Both sums of an array, uint32 [2]; `places` is for tests of arrays with a high word."""
    bits = _bits(jnp.asarray(x))
    low, high = _place(bits.shape, places)
    lanes = tuple(
        _finalised(bits ^ (low * jnp.uint32(of_low) + high * jnp.uint32(of_high) + jnp.uint32(add)))
        for of_low, of_high, add in LANES
    )
    # One reduction for both: XLA's two on a CPU take sixteen times as long.
    zeros = (jnp.uint32(0),) * len(lanes)
    sums = jax.lax.reduce(lanes, zeros, lambda x, y: (x[0] + y[0], x[1] + y[1]), range(bits.ndim))
    return jnp.stack(sums)


def _bits(x: jax.Array) -> jax.Array:
    """The bits of each number as uint32, those of narrower types with zeros before them."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    unsigned = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _place(shape: tuple[int, ...], places: int) -> tuple[jax.Array, jax.Array]:
    """Two words, uint32 of this shape, that tell where a number is.

    The low word is the flat index over the last axes, as many as have at most `places` numbers
    together. The high word is that over the others, zero where there are none.
    """
    split = next(i for i in range(len(shape) + 1) if math.prod(shape[i:]) <= places)
    return _flat(shape, range(split, len(shape))), _flat(shape, range(split))


def _flat(shape: tuple[int, ...], axes: range) -> jax.Array:
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(axes):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    return index


def _finalised(x: jax.Array) -> jax.Array:
    """MurmurHash3's finaliser for 32 bits: each bit of `x` changes half of those that come out."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _plain(x: Any) -> Any:
    """An array as `digests` takes it: numbers of Python become NumPy's, keys their data."""
    if isinstance(x, PerLayer):
        return x
    if not isinstance(x, jax.Array):
        return np.asarray(x)
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _everywhere(arrays: Mapping[str, Any]) -> Sharding | None:
    """Replicated on the mesh of the arrays, None where they are on one device or on the host."""
    for x in arrays.values():
        if isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding):
            return replicated(x.sharding.mesh)
    return None
