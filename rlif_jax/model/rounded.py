"""The sampler's weights in fewer bits: whole numbers of 8 bits, and a scale for each output.

A decode step reads every weight once for few tokens, so on an accelerator half the bits are nearly
half the time. Rounding is to the nearest, with the scale absmax / 127 of all inputs of an output
(vector-wise absmax quantisation; LLM.int8(), arXiv 2208.07339, section 2). The embedding, the head,
norms and biases stay as they are.
"""

import jax
import jax.numpy as jnp
from flax import struct

from rlif_jax.batch import Array
from rlif_jax.kernels.precision import tensordot

_GREATEST = 127


@struct.dataclass
class Int8:
    """A weight as `array` int8 [L, inputs..., outputs...] times `scale` float32 [L, outputs...].

    Of one layer both are without L.
    """

    array: jax.Array
    scale: jax.Array

    @classmethod
    def of(cls, stacked: Array, inputs: int) -> "Int8":
        """The nearest to a weight [L, inputs..., outputs...] of this many axes of inputs."""
        stacked, axes = jnp.asarray(stacked, jnp.float32), tuple(range(1, 1 + inputs))
        absmax = jnp.abs(stacked).max(axes)
        scale = jnp.where(absmax > 0, absmax / _GREATEST, 1.0)
        whole = jnp.round(stacked / jnp.expand_dims(scale, axes))
        return cls(whole.astype(jnp.int8), scale)

    def numbers(self) -> jax.Array:
        """The weight that it stands for, float32 [L, inputs..., outputs...]."""
        axes = tuple(range(1, 1 + self.array.ndim - self.scale.ndim))
        return self.array.astype(jnp.float32) * jnp.expand_dims(self.scale, axes)

    def product(self, x: Array, inputs: int) -> jax.Array:
        """One layer's linear map over the last `inputs` axes of x, in the type of x."""
        y = tensordot(x, self.array.astype(x.dtype), axes=inputs)
        return (y * self.scale).astype(x.dtype)
