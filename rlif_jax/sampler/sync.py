"""From the trainer's parameters to the sampler's."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax import sharding
from rlif_jax.batch import Params
from rlif_jax.model.config import INPUT_AXES
from rlif_jax.model.lora import Adapter, factors_of, merged
from rlif_jax.model.per_layer import PerLayer

Sync = Callable[[Any], Any]


def make_sync(graphdef: nnx.GraphDef, jit: Callable[..., Any] = jax.jit) -> Sync:
    """Build `sync(params) -> params` for sampling on the mesh of `jax.set_mesh`.

    Weights are split by RULES_DECODE, so that no decode step gathers them, and cast once to the
    activation dtype, which every product casts them to anyway; norms stay float32. Adapters are
    merged into their weights. Where nothing is to be changed the same arrays come back. On a single
    CPU the layers' parameters are laid out as `model.per_layer` has them, one more copy. A planner
    takes another `jit`, which gives shapes for shapes.
    """

    # A stage an array: of all at once XLA would hold every gathered copy at the same time.
    @functools.cache
    def cast(dtype: jnp.dtype, place: Any) -> Callable[[jax.Array], jax.Array]:
        return jit(lambda x: x.astype(dtype), out_shardings=place)

    @functools.cache
    def divide(dtype: jnp.dtype, place: Any, inputs: int) -> Callable[[jax.Array], PerLayer]:
        return jit(lambda x: PerLayer.of(x.astype(dtype), inputs), out_shardings=place)

    @functools.cache
    def merge(scale: float, dtype: jnp.dtype, place: Any) -> Callable[..., jax.Array]:
        return jit(lambda w, a, b: merged(w, a, b, scale, dtype), out_shardings=place)

    def sync(params: Params) -> Any:
        cfg = nnx.merge(graphdef, params).cfg
        dtype, mesh = jnp.dtype(cfg.dtype), jax.sharding.get_mesh()
        _, weights = nnx.split_state(params, Adapter, ...)
        places, factors = {}, factors_of(cfg, params)
        per_layer = sharding.on_one_cpu()
        if not mesh.empty:
            shardings = sharding.param_shardings(weights, mesh, sharding.RULES_DECODE)
            places = dict(shardings.flat_state())

        def moved(path: Any, variable: Any) -> Any:
            value = variable.get_value()
            if isinstance(value, PerLayer):
                return variable
            wanted = value.dtype if "norm" in variable.axes else dtype
            if path in factors:
                value = merge(cfg.lora.scale, wanted, value.sharding)(value, *factors[path])
            if per_layer and path[0] == "layers":
                place = value.sharding if mesh.empty else sharding.replicated(mesh)
                inputs = INPUT_AXES.get(path[1], 0)
                return variable.replace(divide(wanted, place, inputs)(value))
            place = places[path].get_value() if places else value.sharding
            if value.sharding.is_equivalent_to(place, value.ndim) and value.dtype == wanted:
                return variable.replace(value)
            return variable.replace(cast(wanted, place)(value))

        flat = [(path, moved(path, variable)) for path, variable in weights.flat_state()]
        return nnx.State.from_flat_path(flat)

    return sync
