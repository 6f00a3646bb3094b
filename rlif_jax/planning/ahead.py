"""Compiling for TPU slices without a TPU: libtpu compiles for a topology that it is told about.

https://docs.jax.dev/en/latest/aot.html. Arrays are shapes and shardings only.
"""

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from rlif_jax.sharding import MESH_AXES


def mesh_of(topology: str, data: int = 1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over all chips of a slice."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    grid = np.asarray(devices).reshape(data, fsdp, tensor)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def with_sharding(tree, shardings):
    """The shapes of a tree with these shardings, one for each array or one for all."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def made_by(lowered, compiled):
    """Shapes and shardings of what a program makes."""
    return with_sharding(lowered.out_info, compiled.output_shardings)


def made(f):
    """Shapes and shardings of what `f()` makes on the mesh of `jax.set_mesh`."""
    lowered = jax.jit(f).lower()
    return made_by(lowered, lowered.compile())


class Ahead:
    """In the place of `jax.jit`: compiles for the shapes that it is called with, and keeps that."""

    def __init__(self):
        self.jit, self.compiled = jax.jit, []

    def __call__(self, f, **settings):
        def call(*args):
            lowered = self.jit(f, **settings).lower(*args)
            self.compiled.append(lowered.compile())
            return made_by(lowered, self.compiled[-1])

        return call


def local_bytes(tree) -> int:
    """Bytes of one device's share."""
    return sum(
        x.dtype.itemsize * int(np.prod(x.sharding.shard_shape(x.shape)))
        for x in jax.tree.leaves(tree)
    )


def total_bytes(compiled) -> int:
    """The most that a chip holds while the program runs."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
