"""Reads a decoder's configuration and weights from a GGUF file.

GGUF is llama.cpp's format: metadata, then tensors, each in its own quantisation. Tensors are
dequantised one by one straight into the stacked arrays, so that no second copy of the model exists
in memory. The format and the names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, quants

from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import ModelConfig, RopeScaling, usable
from rlif_jax.model.rope import frequencies
from rlif_jax.weights.layout import leaf_of
from rlif_jax.weights.parameters import ReadInParts, check_fit

ARCHITECTURES = ("llama", "qwen2", "qwen3")
QUANTISATIONS = ("F32", "F16", "BF16", "Q8_0", "Q4_1")

# Control tokens that end a turn or a document, as in llama.cpp's list of end-of-generation tokens.
_END_TOKENS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>")
_CONTROL = 3  # token type of control tokens

_GLOBAL_NAMES = {
    "embed": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
}
_YARN = {"yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0}  # their defaults in llama.cpp
_ROPE_TABLE = "rope_freqs.weight"  # what llama3's rule divides each frequency by
_LAYER_NAMES = {
    "attn_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
}


def open_gguf(path: str | Path) -> GGUFReader:
    """The parsed header of a GGUF file, its tensors memory-mapped; raises UserError for others."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"model file {path} does not exist; give the path of a .gguf file")
    try:
        return GGUFReader(path)
    except OSError as error:
        raise UserError(f"model file {path} cannot be read: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        # GGUFReader has no exception of its own; a cut or damaged file ends in one of these.
        raise UserError(
            f"model file {path} is not a whole GGUF file ({type(error).__name__}: {error}); "
            "it is damaged or was cut short: fetch it again"
        ) from error


def metadata(reader: GGUFReader, key: str, default: Any = None) -> Any:
    """The value of a metadata key, or `default` when the file does not have it."""
    field = reader.get_field(key)
    try:
        return default if field is None else field.contents()
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise UserError(
            f"model file {reader.data.filename} has unreadable metadata {key} ({error}); it is "
            "damaged: fetch it again"
        ) from error


def read_config(reader: GGUFReader, path: str | Path) -> ModelConfig:
    """The decoder's shape and flags; raises UserError for what this decoder does not do."""
    arch = metadata(reader, "general.architecture")
    if arch not in ARCHITECTURES:
        raise UserError(
            f"model file {path} has architecture {arch!r}; supported are {', '.join(ARCHITECTURES)}"
        )

    def number(key: str, default: float | None = None, kind: type = int) -> Any:
        value = metadata(reader, f"{arch}.{key}", default)
        if value is None:
            raise UserError(f"model file {path} lacks the metadata {arch}.{key}; fetch it again")
        if not usable(value, kind):
            raise UserError(
                f"model file {path} has {arch}.{key} {shown(value)}, not a usable number; it is "
                "damaged: fetch it again"
            )
        return kind(value)

    tensors = {t.name: t for t in reader.tensors}
    if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
        raise UserError(f"model file {path} lacks the matrix token_embd.weight; fetch it again")
    heads, embed = number("attention.head_count"), number("embedding_length")
    layers = number("block_count")
    if layers > len(tensors):  # refused before anything is sized by it
        raise UserError(
            f"model file {path} has {arch}.block_count {layers} but {len(tensors)} tensors; it "
            "is damaged: fetch it again"
        )
    cfg = ModelConfig(
        family=arch,
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        embed=embed,
        ffn=number("feed_forward_length"),
        layers=layers,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", embed // heads),
        rope_theta=number("rope.freq_base", 10000.0, float),
        rms_eps=number("attention.layer_norm_rms_epsilon", kind=float),
        tied="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        max_positions=number("context_length"),
        eos_ids=_eos_ids(reader),
    )
    if cfg.heads % cfg.kv_heads or cfg.head_dim % 2:
        raise UserError(
            f"model file {path} has {cfg.heads} heads, {cfg.kv_heads} key/value heads and heads "
            f"{cfg.head_dim} wide, which do not fit; it is damaged: fetch it again"
        )
    if cfg.rope_theta <= 1:
        raise UserError(
            f"model file {path} has {arch}.rope.freq_base {cfg.rope_theta}, not above 1"
        )
    if (rotated := number("rope.dimension_count", cfg.head_dim)) != cfg.head_dim:
        raise UserError(
            f"model file {path} has {arch}.rope.dimension_count {rotated}, but heads are "
            f"{cfg.head_dim} wide; models that rotate a part of each head are not supported"
        )
    return dataclasses.replace(cfg, rope_scaling=_rope_scaling(reader, cfg, path, number))


def _rope_scaling(
    reader: GGUFReader, cfg: ModelConfig, path: str | Path, number: Callable[..., Any]
) -> RopeScaling | None:
    """Linear and yarn scaling by metadata; llama3's by the table of divisors the file carries."""
    scaling = _scaling_by_metadata(reader, cfg, path, number)
    table = next((t for t in reader.tensors if t.name == _ROPE_TABLE), None)
    if table is None:
        return scaling
    if scaling is not None:
        raise UserError(
            f"model file {path} asks for rope scaling {scaling.kind!r} on top of that of its "
            f"{_ROPE_TABLE}, which is not supported; choose a file with one of them"
        )
    return _recognised(tuple(float(x) for x in table.data.reshape(-1)), cfg, path)


def _scaling_by_metadata(
    reader: GGUFReader, cfg: ModelConfig, path: str | Path, number: Callable[..., Any]
) -> RopeScaling | None:
    """As llama.cpp reads it (load_hparams in its src/llama-model.cpp).

    Without a type scaling is linear; `rope.scale_linear` is the older name of the factor; the type
    `none` does not scale whatever the factor, and linear not without one or by 0 or 1.
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
    by_nothing = kind == "linear" and metadata(reader, f"{cfg.family}.{key}", 0) in (0, 1)
    if kind == "none" or by_nothing:
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
    """Llama 3's own parameters where they give this table, so that config.json can say it."""
    if len(divisors) != cfg.head_dim // 2 or not all(usable(d, float) for d in divisors):
        raise UserError(
            f"model file {path} has {len(divisors)} rotary divisors in {_ROPE_TABLE}, not "
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


def _eos_ids(reader: GGUFReader) -> tuple[int, ...]:
    """Ids that end a completion: those the metadata names, and control tokens that end a turn."""
    ids = {metadata(reader, f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")}
    kinds = metadata(reader, "tokenizer.ggml.token_type", [])
    tokens = metadata(reader, "tokenizer.ggml.tokens", [])
    pairs = enumerate(zip(tokens, kinds, strict=False))
    ids |= {i for i, (token, kind) in pairs if kind == _CONTROL and token in _END_TOKENS}
    return tuple(sorted(ids - {None}))


class GGUFWeights(ReadInParts):
    """The weights of a GGUF file, each tensor dequantised to float32 when it is asked for.

    Every tensor of the file is checked to be used exactly once, of the expected shape and of a
    known quantisation; raises UserError naming those that are not.
    """

    def __init__(self, reader: GGUFReader, cfg: ModelConfig, path: str | Path):
        super().__init__(cfg)
        self._tensors = {t.name: t for t in reader.tensors}
        found = {
            t.name: (
                tuple(int(n) for n in reversed(t.shape)),
                GGMLQuantizationType(t.tensor_type).name,
            )
            for t in reader.tensors
            if t.name != _ROPE_TABLE
        }
        check_fit(
            found,
            _tensor_names,
            QUANTISATIONS,
            cfg,
            f"model file {path} does not fit its own metadata",
        )

    def _block(self, name: str, layer: int, rows: slice, columns: slice) -> np.ndarray:
        tensor = _tensor_names(name, self._cfg.layers)[layer]
        return self._rows(tensor, name, rows)[:, columns]

    def _rows(self, tensor: str, name: str, rows: slice) -> np.ndarray:
        """Rows of a tensor's matrix as Hugging Face orders them, float32; whole heads of q and k.

        For the llama architecture llama.cpp interleaves each head's rotary pairs
        ((0, A/2), (1, A/2 + 1), ...) in q and k, which is undone here.
        """
        stored = self._tensors[tensor]
        kind = GGMLQuantizationType(stored.tensor_type)
        if len(stored.shape) == 1:
            values = quants.dequantize(stored.data, kind)[rows, None]
        elif len(data := stored.data[rows]):
            values = quants.dequantize(data, kind)
        else:
            values = np.zeros((0, int(stored.shape[0])), np.float32)
        values = values.astype(np.float32, copy=False)
        permuted = leaf_of(name) in ("q", "k", "q_bias", "k_bias")
        if self._cfg.family == "llama" and permuted:
            pairs = values.reshape(-1, self._cfg.head_dim // 2, 2, values.shape[1])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        return values

    def stored(self, name: str, layer: int) -> np.ndarray:
        """See `weights.Weights`; quantised tensors as float32."""
        tensor = _tensor_names(name, self._cfg.layers)[layer]
        values = self._rows(tensor, name, slice(None))
        shape = tuple(int(n) for n in reversed(self._tensors[tensor].shape))
        return values.reshape(shape).astype(self.dtype(name, layer))

    def dtype(self, name: str, layer: int) -> np.dtype:
        """See `weights.Weights`."""
        tensor = self._tensors[_tensor_names(name, self._cfg.layers)[layer]]
        kinds = {"F16": np.float16, "BF16": ml_dtypes.bfloat16}
        return np.dtype(kinds.get(GGMLQuantizationType(tensor.tensor_type).name, np.float32))


def _tensor_names(name: str, layers: int) -> list[str]:
    """The GGUF tensors that make up a parameter, in layer order."""
    if name in _GLOBAL_NAMES:
        return [_GLOBAL_NAMES[name]]
    leaf = _LAYER_NAMES[leaf_of(name)]
    return [f"blk.{i}.{leaf}" for i in range(layers)]
