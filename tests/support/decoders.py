"""Random decoders of each family, and their forward as one jitted function."""

import dataclasses
import functools

import jax
from flax import nnx

from rlif_jax.model.config import RopeScaling
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.per_layer import PerLayer
from support.tiny_gguf import TINY

CONFIGS = {
    "llama": TINY,
    "qwen": dataclasses.replace(TINY, tied=False, qkv_bias=True, qk_norm=True),
    "llama3": dataclasses.replace(
        TINY, kv_heads=1, rope_scaling=RopeScaling("llama3", 4.0, original_positions=16)
    ),
    "yarn": dataclasses.replace(
        TINY,
        kv_heads=4,
        rope_scaling=RopeScaling("yarn", 4.0, original_positions=16, attention_factor=1.2),
    ),
}


@functools.cache
def decoder(family: str = "llama", **changed) -> Decoder:
    cfg = dataclasses.replace(CONFIGS[family], **changed)
    model = Decoder.init(cfg, jax.random.key(1), scale=0.3)
    for i, (name, param) in enumerate(sorted(vars(model.layers).items())):
        if name.endswith(("norm", "bias")):  # away from 1 and 0
            noise = jax.random.normal(jax.random.key(i), param[...].shape)
            param[...] = param[...] + 0.2 * noise
    return model


@functools.partial(jax.jit, static_argnums=0)
def call(graphdef, params, *args):
    return nnx.merge(graphdef, params)(*args)


def forward(model: Decoder):
    """The model as one jitted function of (tokens, position, mask)."""
    return functools.partial(call, *nnx.split(model))


def stacked(params):
    """Parameters that a sampler on a single CPU has taken apart, in the trainer's form again."""

    def apart(x) -> bool:
        return isinstance(x, PerLayer)

    return jax.tree.map(lambda x: x.joined() if apart(x) else x, params, is_leaf=apart)
