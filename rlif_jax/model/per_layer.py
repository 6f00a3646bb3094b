"""Weights as a CPU decodes with them fastest: an array for each layer, stored outputs first.

A step for few tokens is bound by reading the weights. Slices of a stack are copied before they are
multiplied, and a product W x, with W [outputs, inputs] and the tokens in the columns of x, streams
through W where x W strides: benchmarks/RESULTS.md has the figures. The parameters keep the one form
that `config.param_specs` declares; this is made of them by the sampler's copy, and nothing else
reads it.
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

    def product(self, x: Array, inputs: int) -> jax.Array:
        """The linear map over the last `inputs` axes of x, which it replaces by the outputs.

        Of a single token, without other axes, it is W x: `jax.vmap` over the last axis of tokens
        then keeps them in columns.
        """
        of_weight = tuple(range(self.array.ndim - inputs, self.array.ndim))
        of_x = tuple(range(x.ndim - inputs, x.ndim))
        if x.ndim == inputs:
            return tensordot(self.array, x, (of_weight, of_x))
        return tensordot(x, self.array, (of_x, of_weight))


@struct.dataclass
class PerLayer:
    """A parameter of all layers, one array each; `inputs` of its axes have moved to the end."""

    arrays: tuple[jax.Array, ...]
    inputs: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, stacked: jax.Array, inputs: int) -> "PerLayer":
        """From an array [L, inputs..., outputs...]; 0 `inputs`: it is no weight of a product."""
        outputs_first = jnp.moveaxis(
            stacked, range(1, 1 + inputs), range(stacked.ndim - inputs, stacked.ndim)
        )
        return cls(tuple(outputs_first), inputs)

    @property
    def stacked(self) -> jax.Array:
        """As it was, [L, inputs..., outputs...]."""
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
        return self.arrays[0].dtype
