"""Rotary scaling in GGUF files."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import ModelConfig, RopeScaling, usable
from rlif_jax.model.rope import frequencies
from rlif_jax.weights.gguf_header import metadata

_YARN = {"yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0}  # their defaults in llama.cpp
ROPE_TABLE = "rope_freqs.weight"  # what llama3's rule divides each frequency by


def read_rope_scaling(
    reader: GGUFReader, cfg: ModelConfig, path: str | Path, number: Callable[..., Any]
) -> RopeScaling | None:
    """Linear and yarn scaling by metadata; llama3's by the table of divisors the file carries."""
    scaling = _scaling_by_metadata(reader, cfg, path, number)
    table = next((t for t in reader.tensors if t.name == ROPE_TABLE), None)
    if table is None:
        return scaling
    if scaling is not None:
        raise UserError(
            f"model file {path} asks for rope scaling {scaling.kind!r} on top of that of its "
            f"{ROPE_TABLE}, which is not supported; choose a file with one of them"
        )
    return _recognised(tuple(float(x) for x in table.data.reshape(-1)), cfg, path)


def _scaling_by_metadata(
    reader: GGUFReader, cfg: ModelConfig, path: str | Path, number: Callable[..., Any]
) -> RopeScaling | None:
    """As llama.cpp reads it (load_hparams in its src/llama-model.cpp).

    Without a type, scaling is linear. `rope.scale_linear` is the older name of the factor. The type
    `none` ignores the factor; linear scaling without a factor, or by 0 or 1, is no scaling.
    """
    prefix = f"{cfg.family}.rope.scaling."
    kind = metadata(reader, f"{prefix}type", "linear")
    known = (*_YARN, "type", "factor", "original_context_length", "finetuned")
    given = [name.removeprefix(prefix) for name in reader.fields if name.startswith(prefix)]
    unknown = [name for name in given if name not in known]
    if kind not in ("none", "linear", "yarn") or unknown:
        raise UserError(
            f"model file {path} asks for rope scaling {shown(kind)}{' with ' if unknown else ''}"
            f"{', '.join(unknown)}; supported are none, linear, and yarn with {', '.join(_YARN)}"
        )
    key = "rope.scaling.factor"
    if "factor" not in given and f"{cfg.family}.rope.scale_linear" in reader.fields:
        key = "rope.scale_linear"
    by_one = kind == "linear" and metadata(reader, f"{cfg.family}.{key}", 0) in (0, 1)
    if kind == "none" or by_one:
        return None
    factor = number(key, kind=float)
    if kind == "linear":
        return RopeScaling("linear", factor=factor)
    fast, slow = (number(f"rope.scaling.{n}", default, float) for n, default in _YARN.items())
    return RopeScaling(
        "yarn",
        factor=factor,
        original_positions=number("rope.scaling.original_context_length", cfg.max_positions),
        beta_fast=fast,
        beta_slow=slow,
        attention_factor=1 + 0.1 * math.log(factor) if factor > 1 else 1.0,
    )


def _recognised(divisors: tuple[float, ...], cfg: ModelConfig, path: str | Path) -> RopeScaling:
    """Llama 3's parameters where they give this table, so that config.json can express it."""
    if len(divisors) != cfg.head_dim // 2 or not all(usable(d, float) for d in divisors):
        raise UserError(
            f"model file {path} has {len(divisors)} rotary divisors in {ROPE_TABLE}, not "
            f"{cfg.head_dim // 2} positive ones; it is damaged: fetch it again"
        )
    llama3 = RopeScaling(
        "llama3",
        factor=max(divisors),
        original_positions=8192,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
    )
    made = frequencies(dataclasses.replace(cfg, rope_scaling=llama3))
    if np.allclose(frequencies(cfg) / made, divisors, rtol=1e-5):
        return llama3
    return RopeScaling("table", divisors=divisors)
