"""The precision of matrix products, decided here for the whole package.

Left to themselves, accelerators round float32 operands before they multiply: TPUs to bfloat16,
NVIDIA GPUs to TF32, which has 10 bits of mantissa. HIGHEST keeps all 24 bits of float32. On
bfloat16 operands it costs nothing: their products are exact in float32.

The type of the sums is not decided here: `preferred_element_type` is the caller's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jax.typing import DTypeLike

from rlif_jax.batch import Array


def matmul_precision(*dtypes: DTypeLike) -> Precision:
    """HIGHEST where an operand is float32 or wider; of narrower types the products are exact."""
    widest = max(jnp.finfo(dtype).bits for dtype in dtypes)
    return Precision.HIGHEST if widest >= 32 else Precision.DEFAULT


def einsum(
    subscripts: str, x: Array, y: Array, preferred_element_type: DTypeLike | None = None
) -> jax.Array:
    """`jnp.einsum` of two arrays at the precision of their types, gradients included."""
    return jnp.einsum(
        subscripts,
        x,
        y,
        precision=matmul_precision(x.dtype, y.dtype),
        preferred_element_type=preferred_element_type,
    )


def tensordot(x: Array, y: Array, axes: int | tuple[Sequence[int], Sequence[int]]) -> jax.Array:
    """`jnp.tensordot` at the precision of the operands' types, gradients included."""
    return jnp.tensordot(x, y, axes=axes, precision=matmul_precision(x.dtype, y.dtype))


def head_einsum(subscripts: str, x: Array, y: Array) -> jax.Array:
    """A product with the head, or one of its gradients: exact products, float32 sums."""
    return jnp.einsum(
        subscripts, x, y, precision=Precision.HIGHEST, preferred_element_type=jnp.float32
    )


def products_of(dtype: DTypeLike) -> dict[str, str]:
    """The precision of products that a run with activations of this type records.

    Their operands, those of the head among them, are of the type of the activations.
    """
    return {
        "operands": jnp.dtype(dtype).name,
        "products": matmul_precision(dtype).name.lower(),
        "head": Precision.HIGHEST.name.lower(),
    }
