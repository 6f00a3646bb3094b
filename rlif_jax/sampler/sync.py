"""From the trainer's parameters to the sampler's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Params

Sync = Callable[[Any], Any]


def make_sync(graphdef: nnx.GraphDef) -> Sync:
    """Build `sync(params) -> params` for sampling on the mesh of `jax.set_mesh`.

    Weights are split by RULES_DECODE, so that no decode step gathers them, and cast once to the
    activation dtype, which every product casts them to anyway; norms stay float32. Where nothing
    is to be changed the same arrays come back.
    """

    # A stage an array: of all at once XLA would hold every gathered copy at the same time.
    stages: dict[Any, Callable[[jax.Array], jax.Array]] = {}

    def move(value: jax.Array, dtype: jnp.dtype, place: Any) -> jax.Array:
        if (dtype, place) not in stages:
            stages[dtype, place] = jax.jit(lambda x: x.astype(dtype), out_shardings=place)
        return stages[dtype, place](value)

    def sync(params: Params) -> Any:
        dtype = jnp.dtype(nnx.merge(graphdef, params).cfg.dtype)
        mesh = jax.sharding.get_mesh()

        def moved(variable, place):
            value = variable.get_value()
            wanted = value.dtype if "norm" in variable.axes else dtype
            there = place is None or value.sharding.is_equivalent_to(place, value.ndim)
            if there and value.dtype == wanted:
                return variable
            return variable.replace(move(value, wanted, place))

        def is_variable(x):
            return hasattr(x, "axes")

        if mesh.empty:
            return jax.tree.map(lambda x: moved(x, None), params, is_leaf=is_variable)
        places = sharding.param_shardings(params, mesh, sharding.RULES_DECODE)
        places = jax.tree.map(lambda x: x.get_value(), places, is_leaf=is_variable)
        return jax.tree.map(moved, params, places, is_leaf=is_variable)

    return sync
