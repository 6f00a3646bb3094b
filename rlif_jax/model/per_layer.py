"""Weights as a CPU decodes with them fastest: an array for each layer, stored outputs first.

A step for few tokens is bound by reading the weights. Slices of a stack are copied before they are
multiplied, and a product W x, with W [outputs, inputs] and the tokens in the columns of x, streams
through W where x W strides: benchmarks/RESULTS.md has the figures. The parameters keep the one form
that `config.param_specs` declares; this is made of them by the sampler's copy, and only decode
steps read it. Prefill has tokens enough to hide the slices, and with the stack it compiles in a
quarter of the time.
"""

import jax
import jax.numpy as jnp
from flax import struct

from rlif_jax.batch import Array
from rlif_jax.kernels.precision import tensordot


@struct.dataclass
class OutputsFirst:
    """One layer's weight, its axes of inputs behind those of outputs."""

    array: jax.Array

    def product(self, x: Array) -> jax.Array:
        """The linear map W x of a single token.

        `jax.vmap` over a last axis of tokens keeps them in columns.
        """
        of_weight = tuple(range(self.array.ndim - x.ndim, self.array.ndim))
        return tensordot(self.array, x, (of_weight, tuple(range(x.ndim))))


@struct.dataclass
class PerLayer:
    """A parameter of all layers, one array each; `inputs` of its axes have moved to the end.

    `stacked` is the array [L, inputs..., outputs...] that they were made of.
    """

    arrays: tuple[jax.Array, ...]
    stacked: jax.Array
    inputs: int = struct.field(pytree_node=False)

    @staticmethod
    def divided(stacked: jax.Array, inputs: int) -> tuple[jax.Array, ...]:
        """The arrays of [L, inputs..., outputs...]; 0 `inputs`: it is no weight of a product."""
        outputs_first = jnp.moveaxis(
            stacked, range(1, 1 + inputs), range(stacked.ndim - inputs, stacked.ndim)
        )
        return tuple(outputs_first)

    def joined(self) -> jax.Array:
        """The arrays put together again, [L, inputs..., outputs...]."""
        whole = jnp.stack(self.arrays)
        return jnp.moveaxis(
            whole, range(whole.ndim - self.inputs, whole.ndim), range(1, 1 + self.inputs)
        )

    @property
    def layers(self) -> tuple[OutputsFirst | jax.Array, ...]:
        """What each layer computes with."""
        return tuple(map(OutputsFirst, self.arrays)) if self.inputs else self.arrays

    @property
    def dtype(self) -> jnp.dtype:
        """The type of the arrays."""
        return self.stacked.dtype


def layers_of(weights: dict[str, PerLayer]) -> list[dict[str, OutputsFirst | jax.Array]]:
    """What each layer computes with, by name."""
    layers = zip(*(w.layers for w in weights.values()), strict=True)
    return [dict(zip(weights, layer, strict=True)) for layer in layers]
