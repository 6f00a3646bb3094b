"""Rotary positions (arXiv 2104.09864) and the rules that scale their frequencies.

A pair of channels i of a head turns by position * frequency_i. The scaled frequencies are those
of transformers' modeling_rope_utils, computed once per model in NumPy.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rlif_jax.model.config import ModelConfig, RopeScaling

Array = jax.Array


def frequencies(cfg: ModelConfig) -> np.ndarray:
    """Radians per position of each pair of channels, float32 [A/2]."""
    exponent = np.arange(0, cfg.head_dim, 2, dtype=np.float32) / np.float32(cfg.head_dim)
    base = (1 / np.float64(cfg.rope_theta) ** exponent).astype(np.float32)
    scaling = cfg.rope_scaling
    if scaling is None:
        return base
    match scaling.kind:
        case "linear":
            return base / np.float32(scaling.factor)
        case "llama3":
            return _llama3(base, scaling)
        case "yarn":
            return _yarn(base, scaling, cfg)
        case "table":
            return base / np.asarray(scaling.divisors, np.float32)
    raise ValueError(f"unknown kind of rope scaling {scaling.kind!r}")


def _llama3(base: np.ndarray, s: RopeScaling) -> np.ndarray:
    """Llama 3.1's rule: short wavelengths stay, long ones are divided, others are blended."""
    wavelength = 2 * np.pi / base.astype(np.float64)
    turns = s.original_positions / wavelength
    blend = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    blend = np.clip(blend, 0.0, 1.0)  # 0: longer than original / low, 1: shorter than / high
    return ((1 - blend) * base / s.factor + blend * base).astype(np.float32)


def _yarn(base: np.ndarray, s: RopeScaling, cfg: ModelConfig) -> np.ndarray:
    """YaRN's rule: divided where a channel turns less than beta_slow times in the first context."""

    def channel(turns: float) -> float:
        """The (fractional) pair of channels that turns `turns` times in `original_positions`."""
        ratio = s.original_positions / (turns * 2 * math.pi)
        return cfg.head_dim * math.log(ratio) / (2 * math.log(cfg.rope_theta))

    low, high = channel(s.beta_fast), channel(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, cfg.head_dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(cfg.head_dim // 2) - low) / (high - low), 0, 1)
    return (base / s.factor * ramp + base * (1 - ramp)).astype(np.float32)


def rope_angles(position_BT: Array, cfg: ModelConfig) -> tuple[Array, Array]:
    """Cosine and sine of position * frequency, each float32 [B, T, A/2]."""
    angle = position_BT[..., None].astype(jnp.float32) * frequencies(cfg)
    scale = 1.0 if cfg.rope_scaling is None else cfg.rope_scaling.attention_factor
    return jnp.cos(angle) * scale, jnp.sin(angle) * scale


def rotate(x_BTHA: Array, cos_BTI: Array, sin_BTI: Array) -> Array:
    """Rotate each head's pairs (i, i + A/2), the order of Hugging Face checkpoints, in float32."""
    first, second = jnp.split(x_BTHA.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_BTI[..., None, :], sin_BTI[..., None, :]
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return out.astype(x_BTHA.dtype)
