"""What a decoder is: its shape, its flags, and the declaration of each of its parameters."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from rlif_jax.config.shared import Remat
from rlif_jax.errors import UserError

_ROW_MULTIPLE = 128
"""Embedding rows are padded to this: mesh axes of a power of two, up to 128 devices, divide them.

`placement` refuses an axis of another size unless it divides them, too.
"""

_FLOAT32 = np.finfo(np.float32)

INPUT_AXES = {"q": 1, "k": 1, "v": 1, "o": 2, "gate": 1, "up": 1, "down": 1}
"""The weights of a layer's linear maps, with the number of their leading axes that are inputs."""


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are scaled to reach a longer context than that of pre-training.

    `linear` divides all by `factor`; `llama3` divides the low ones and blends in between;
    `yarn` (arXiv 2309.00071) blends between both over a range of rotations, and multiplies cosine
    and sine by `attention_factor`; `table` divides frequency i by `divisors[i]`, which is how GGUF
    files keep llama3's rule. A field that the kind does not read stays at its default.
    """

    kind: Literal["linear", "llama3", "yarn", "table"]
    factor: float = 1.0
    original_positions: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    divisors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685): a layer multiplies by w + alpha / rank * a b.

    `a` takes the inputs of w to `rank` numbers, `b` takes these to its outputs; w is frozen.
    `targets` are among `INPUT_AXES`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    @property
    def scale(self) -> float:
        """What the product a b is multiplied by."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class ModelConfig:
    """Shape and flags of a decoder, and the numerics it runs in.

    `vocab_size` counts the embedding rows of the checkpoint and `token_ids` the ids its tokenizer
    has, if they are fewer (0: all rows): rows beyond them are never sampled and take no part in
    statistics. `eos_ids` end a completion. `dtype` is the type of activations and matrix products;
    parameters are float32. `remat` names what the backward pass keeps of each layer, as
    `config.Model.remat` describes. With `lora` adapters alone are trained.
    """

    vocab_size: int
    embed: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    family: Literal["llama", "qwen2", "qwen3"] = "llama"
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rms_eps: float = 1e-6
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int = 2048
    token_ids: int = 0
    eos_ids: tuple[int, ...] = ()
    dtype: str = "float32"
    remat: Remat = "none"
    lora: Lora | None = None

    @property
    def vocab_rows(self) -> int:
        """Rows of the embedding in memory: those of the checkpoint, padded with zeros."""
        return _ROW_MULTIPLE * math.ceil(self.vocab_size / _ROW_MULTIPLE)

    @property
    def reachable(self) -> int:
        """Rows that a token id can name, all of them at the start of the embedding."""
        return self.token_ids or self.vocab_size


class ParamSpec(NamedTuple):
    """Declaration of one parameter: `axes` are logical names, one for each entry of `shape`."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: str  # "normal", "ones", "zeros" or "fan_in"

    @property
    def stacked(self) -> bool:
        """Whether the first axis is that of the layers."""
        return self.axes[0] == "layer"

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """The shape of one layer's share; of a parameter that is not of the layers, its own."""
        return self.shape[1:] if self.stacked else self.shape


def usable(value: Any, kind: type) -> bool:
    """Whether a value from a file is a positive number: an int below 2^31, or a normal float32.

    `kind` is int or float; an int may stand for a float, a bool for neither.
    """
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return False
    if kind is int:
        return 0 < value < 2**31
    return float(_FLOAT32.tiny) <= value <= float(_FLOAT32.max)


def param_specs(cfg: ModelConfig) -> dict[str, ParamSpec]:
    """Every parameter of the decoder by name; those of the layers begin with `layers.`."""
    L, D, F, H, K, A = cfg.layers, cfg.embed, cfg.ffn, cfg.heads, cfg.kv_heads, cfg.head_dim
    specs = {
        "embed": ParamSpec((cfg.vocab_rows, D), ("vocab", "embed"), "normal"),
        "final_norm": ParamSpec((D,), ("norm",), "ones"),
        "layers.attn_norm": ParamSpec((L, D), ("layer", "norm"), "ones"),
        "layers.q": ParamSpec((L, D, H, A), ("layer", "embed", "heads", "head_dim"), "normal"),
        "layers.k": ParamSpec((L, D, K, A), ("layer", "embed", "kv_heads", "head_dim"), "normal"),
        "layers.v": ParamSpec((L, D, K, A), ("layer", "embed", "kv_heads", "head_dim"), "normal"),
        "layers.o": ParamSpec((L, H, A, D), ("layer", "heads", "head_dim", "embed"), "normal"),
        "layers.ffn_norm": ParamSpec((L, D), ("layer", "norm"), "ones"),
        "layers.gate": ParamSpec((L, D, F), ("layer", "embed", "ffn"), "normal"),
        "layers.up": ParamSpec((L, D, F), ("layer", "embed", "ffn"), "normal"),
        "layers.down": ParamSpec((L, F, D), ("layer", "ffn", "embed"), "normal"),
    }
    if cfg.qkv_bias:
        specs["layers.q_bias"] = ParamSpec((L, H, A), ("layer", "heads", "head_dim"), "zeros")
        specs["layers.k_bias"] = ParamSpec((L, K, A), ("layer", "kv_heads", "head_dim"), "zeros")
        specs["layers.v_bias"] = ParamSpec((L, K, A), ("layer", "kv_heads", "head_dim"), "zeros")
    if cfg.qk_norm:
        specs["layers.q_norm"] = ParamSpec((L, A), ("layer", "norm"), "ones")
        specs["layers.k_norm"] = ParamSpec((L, A), ("layer", "norm"), "ones")
    if not cfg.tied:
        specs["head"] = ParamSpec((cfg.vocab_rows, D), ("vocab", "embed"), "normal")
    return specs | _adapter_specs(cfg.lora, specs)


def _adapter_specs(lora: Lora | None, specs: dict[str, ParamSpec]) -> dict[str, ParamSpec]:
    """Both factors of each adapter, in the axes of the weight that it goes with."""
    adapters = {}
    if lora is None:
        return adapters
    for target in lora.targets:
        (L, *shape), (layer, *axes), _ = specs[f"layers.{target}"]
        n = INPUT_AXES[target]
        adapters[f"layers.{target}_lora_a"] = ParamSpec(
            (L, *shape[:n], lora.rank), (layer, *axes[:n], "rank"), "fan_in"
        )
        adapters[f"layers.{target}_lora_b"] = ParamSpec(
            (L, lora.rank, *shape[n:]), (layer, "rank", *axes[n:]), "zeros"
        )
    return adapters


def adapter_specs(cfg: ModelConfig) -> dict[str, ParamSpec]:
    """The adapters among `param_specs`: they alone are trained, and no model's files have them."""
    return {name: spec for name, spec in param_specs(cfg).items() if "rank" in spec.axes}


def param_count(cfg: ModelConfig) -> int:
    """Parameters of the checkpoint, padding rows left out."""
    total = sum(math.prod(spec.shape) for spec in param_specs(cfg).values())
    return total - (cfg.vocab_rows - cfg.vocab_size) * cfg.embed * (1 if cfg.tied else 2)


def check_length(cfg: ModelConfig, source: str, prompt: int, completion: int) -> None:
    """Raise UserError if prompt and completion together exceed the positions of this model."""
    if prompt + completion > cfg.max_positions:
        raise UserError(
            f"prompts of up to {prompt} tokens and completions of up to {completion} exceed "
            f"the {cfg.max_positions} positions of {source}; lower "
            "max_prompt_tokens or max_new_tokens"
        )


def kv_bytes_per_token(cfg: ModelConfig, itemsize: int = 2) -> int:
    """Bytes that the key/value cache holds for one token of one row, `itemsize` a number."""
    return 2 * cfg.layers * cfg.kv_heads * cfg.head_dim * itemsize
