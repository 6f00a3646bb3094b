"""From the trainer's parameters to the sampler's."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

from rlif_jax import sharding
from rlif_jax.batch import Params
from rlif_jax.config import WeightsDtype
from rlif_jax.model.config import INPUT_AXES
from rlif_jax.model.lora import Adapter, factors_of, merged
from rlif_jax.model.per_layer import PerLayer
from rlif_jax.model.rounded import Int8

Sync = Callable[[Any], Any]


def make_sync(
    graphdef: nnx.GraphDef, weights_dtype: WeightsDtype = "", jit: Callable[..., Any] = jax.jit
) -> Sync:
    """Build `sync(params) -> params` for sampling on the mesh of `jax.set_mesh`.

    Weights are split by RULES_DECODE, so that no decode step gathers them, and cast once to the
    activation dtype, which every product casts them to anyway; norms stay float32. Adapters are
    merged into their weights. Where nothing is to be changed the same arrays come back. On a single
    CPU the layers' parameters are laid out as `model.per_layer` has them, one more copy beside the
    stack. The layers' weights are rounded to `weights_dtype`, and stored in it but on a single CPU,
    which would have to widen them in every step. A planner takes another `jit`, which gives shapes
    for shapes.
    """

    # A stage an array: of all at once XLA would hold every gathered copy at the same time.
    @functools.cache
    def cast(dtype: jnp.dtype, place: Any) -> Callable[[jax.Array], jax.Array]:
        return jit(lambda x: x.astype(dtype), out_shardings=place)

    @functools.cache
    def divide(place: Any, inputs: int) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
        return jit(lambda x: PerLayer.divided(x, inputs), out_shardings=place)

    @functools.cache
    def quantise(inputs: int, place: Any, of_scale: Any) -> Callable[[jax.Array], Int8]:
        return jit(lambda x: Int8.of(x, inputs), out_shardings=Int8(place, of_scale))

    @functools.cache
    def rounded(inputs: int, place: Any) -> Callable[[jax.Array], jax.Array]:
        def nearest(x: jax.Array) -> jax.Array:
            if weights_dtype == "int8":
                return Int8.of(x, inputs).numbers()
            narrow = jnp.finfo(weights_dtype)  # XLA drops a cast there and back
            return jax.lax.reduce_precision(x, narrow.nexp, narrow.nmant)

        return jit(nearest, out_shardings=place)

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
            if isinstance(value, PerLayer | Int8):
                return variable
            wanted = value.dtype if "norm" in variable.axes else dtype
            if path in factors:
                value = merge(cfg.lora.scale, wanted, value.sharding)(value, *factors[path])
            place = places[path].get_value() if places else value.sharding
            inputs = INPUT_AXES.get(path[-1], 0) if path[0] == "layers" else 0
            if weights_dtype and inputs:
                if per_layer:
                    value = rounded(inputs, value.sharding)(value)
                elif weights_dtype == "int8":
                    of_scale = _place_of_scale(variable, inputs) or place
                    return variable.replace(quantise(inputs, place, of_scale)(value))
                else:
                    wanted = jnp.dtype(weights_dtype)
            if not (value.sharding.is_equivalent_to(place, value.ndim) and value.dtype == wanted):
                value = cast(wanted, place)(value)
            if per_layer and path[0] == "layers":
                place = value.sharding if mesh.empty else sharding.replicated(mesh)
                value = PerLayer(divide(place, inputs)(value), value, inputs)
            return variable.replace(value)

        flat = [(path, moved(path, variable)) for path, variable in weights.flat_state()]
        return nnx.State.from_flat_path(flat)

    return sync


def _place_of_scale(variable: Any, inputs: int) -> NamedSharding | None:
    """Of a weight's scales, one for each output, on the mesh of `jax.set_mesh`; None without."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return None
    axes, shape = ((x[0], *x[1 + inputs :]) for x in (variable.axes, variable.get_value().shape))
    return sharding.array_sharding(axes, shape, mesh, sharding.RULES_DECODE)
