"""Low-rank adapters (arXiv 2106.09685): small trained factors a, b beside a frozen weight w.

A layer multiplies by w + scale * a b, with scale = alpha / rank. Training keeps the factors apart;
sampling, and all that reads a model from files, has them merged into w. `b` starts at zero, so that
training starts from the base model exactly.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax.batch import Params
from rlif_jax.config import Model as Settings
from rlif_jax.kernels.precision import tensordot
from rlif_jax.model.config import INPUT_AXES, Lora, ModelConfig, ParamSpec, adapter_specs
from rlif_jax.model.per_layer import OutputsFirst
from rlif_jax.model.rounded import Int8
from rlif_jax.sharding import on_one_cpu

Array = jax.Array


class Adapter(nnx.Param):
    """One factor of an adapter."""


def lora_of(settings: Settings) -> Lora | None:
    """The adapters that a run's configuration asks for."""
    lora = Lora(settings.lora_rank, settings.lora_alpha, settings.lora_targets)
    return lora if lora.rank else None


def linear(cfg: ModelConfig, x: Array, w: dict[str, Any], name: str) -> Array:
    """The linear map `name` of a layer, and its adapter if `w` has one, over the last axes of x.

    Products are in the type of `x`.
    """

    def times(x: Array, weight: Array | OutputsFirst | Int8, axes: int) -> Array:
        if isinstance(weight, OutputsFirst):
            return weight.product(x)
        if isinstance(weight, Int8):
            return weight.product(x, axes)
        weight = weight.astype(x.dtype)
        if on_one_cpu():
            return _as_matrices(x, weight, axes)
        # Not an einsum: that contracts in alphabetical order, A before H, and XLA copies both.
        return tensordot(x, weight, axes=axes)

    y = times(x, w[name], INPUT_AXES[name])
    if cfg.lora is None or name not in cfg.lora.targets:
        return y
    low = times(x, w[f"{name}_lora_a"], INPUT_AXES[name])
    return y + cfg.lora.scale * times(low, w[f"{name}_lora_b"], 1)


def _as_matrices(x: Array, weight: Array, axes: int) -> Array:
    """`tensordot` over `axes`, of a row for each token.

    The gradient of the weight contracts the tokens. Where these are more than one axis, XLA for
    CPUs first copies what it multiplies into transposed order, at several times the product's time.
    On a mesh the axes stay, for they are split over different devices.
    """
    tokens, inputs = x.shape[: x.ndim - axes], math.prod(weight.shape[:axes])
    rows = tensordot(x.reshape(-1, inputs), weight.reshape(inputs, -1), axes=1)
    return rows.reshape(*tokens, *weight.shape[axes:])


def merged(weight: Array, a: Array, b: Array, scale: float, dtype: Any = jnp.float32) -> Array:
    """w + scale * a b of all layers [L, ...] in float32, cast to `dtype`.

    One layer after the other: the sum in float32 takes no more memory than a layer.
    """

    def layer(factors: tuple[Array, Array, Array]) -> Array:
        weight, a, b = (x.astype(jnp.float32) for x in factors)
        return (weight + scale * tensordot(a, b, axes=1)).astype(dtype)

    return jax.lax.map(layer, (weight, a, b))


def fresh_adapters(cfg: ModelConfig, key: Array) -> dict[str, Array]:
    """The adapters of an untrained decoder by name, {} without `cfg.lora`.

    `a` is uniform within 1 / sqrt(inputs) of zero and `b` zero, as PEFT makes them.
    """

    def made(spec: ParamSpec, key: Array) -> Array:
        if spec.init == "zeros":
            return jnp.zeros(spec.shape)
        bound = math.prod(spec.layer_shape[:-1]) ** -0.5
        return jax.random.uniform(key, spec.shape, minval=-bound, maxval=bound)

    return {
        name: made(spec, jax.random.fold_in(key, i))
        for i, (name, spec) in enumerate(adapter_specs(cfg).items())
    }


def factors_of(cfg: ModelConfig, params: Params) -> dict[tuple[str, str], list[Array]]:
    """Both factors of each adapter by the path of its weight."""
    layers: Any = params["layers"]
    return {
        ("layers", target): [layers[f"{target}_lora_{x}"].get_value() for x in "ab"]
        for target in (cfg.lora.targets if cfg.lora else ())
    }


def divided(params: Params) -> tuple[Params, Params]:
    """The trained and the frozen parameters: the adapters and the others, or all and none."""
    adapters, others = nnx.split_state(params, Adapter, ...)
    return (adapters, others) if adapters else (others, adapters)


def trained(params: Params) -> Params:
    """The parameters that the optimiser sees."""
    return divided(params)[0]


def with_trained(params: Params, moving: Params) -> Params:
    """`params` with these in place of its trained ones."""
    return nnx.merge_state(divided(params)[1], moving)


def without_adapters(graphdef: nnx.GraphDef) -> nnx.GraphDef:
    """The graph definition of the same decoder with merged weights."""
    model = nnx.graph.unflatten(graphdef, [None] * graphdef.num_leaves)
    if model.cfg.lora is None:
        return graphdef
    nnx.pop(model, Adapter)
    model.cfg = dataclasses.replace(model.cfg, lora=None)
    return nnx.graphdef(model)
