"""What a device does at best: a large matrix product and a large copy, measured."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks.on_device.parts import timed
from benchmarks.on_device.results import Ceilings, Figure
from benchmarks.on_device.sizes import Sizes
from rlif_jax.kernels.precision import einsum

_RUNS = 6
_IN_A_ROW = 4
"""Calls that are given to the device before the host waits, so that it has the next one ready."""


def measure_ceilings(sizes: Sizes, when: str = "") -> Iterator[Figure | Ceilings]:
    """The best run of each: the figures, named with `when` behind, then the `Ceilings`."""
    products = [_product(sizes, dtype, f"product{when}") for dtype in ("float32", "bfloat16")]
    copy = _copy(sizes, f"copy{when}")
    yield from (*products, copy)
    float32, bfloat16, copied = (one.rates[-1] for one in (*products, copy))
    yield Ceilings(float32=float32, bfloat16=bfloat16, copied=copied)


def _product(sizes: Sizes, dtype: str, what: str) -> Figure:
    """A square product as the package computes them: float32 as float32, not rounded before."""
    n = sizes.product
    keys = jax.random.split(jax.random.key(0), 2)
    x, y = (jax.random.normal(key, (n, n), jnp.float32).astype(dtype) for key in keys)
    product = jax.jit(lambda x, y: einsum("IK,KJ->IJ", x, y) * n**-0.5)  # of the size of x again

    def run() -> jax.Array:
        z = x
        for _ in range(_IN_A_ROW):
            z = product(z, y)
        return z

    seconds = timed(run, _RUNS)
    flops = 2.0 * n**3 * _IN_A_ROW
    return Figure(what, "", "FLOP", flops, seconds, dtype, note=f"{n} x {n}")


def _copy(sizes: Sizes, what: str) -> Figure:
    """An array that is read and written once; bytes count both ways."""
    size = sizes.copy_mib * 2**20
    copy = jax.jit(lambda x: x ^ 1, donate_argnums=0)  # a plain copy, XLA would leave out
    kept = [jnp.zeros(size // 4, jnp.uint32)]

    def run() -> jax.Array:
        for _ in range(_IN_A_ROW):
            kept[0] = copy(kept[0])
        return kept[0]

    seconds = timed(run, _RUNS)
    note = f"{sizes.copy_mib} MiB"
    return Figure(what, "", "byte", 2.0 * size * _IN_A_ROW, seconds, "uint32", note=note)
