"""Reads a decoder's configuration and weights from a GGUF file.

GGUF is llama.cpp's format: metadata, then tensors, each in its own quantisation. Tensors are
dequantised one by one straight into the stacked arrays, so that no second copy of the model exists
in memory. The format and the names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, quants

from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import ModelConfig, usable
from rlif_jax.weights.gguf_header import metadata
from rlif_jax.weights.gguf_rope import ROPE_TABLE, read_rope_scaling
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


def read_config(reader: GGUFReader, path: str | Path) -> ModelConfig:
    """The decoder's shape and flags; raises UserError for what this decoder does not support."""
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
            f"{cfg.head_dim} wide, which do not fit together; it is damaged: fetch it again"
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
    return dataclasses.replace(cfg, rope_scaling=read_rope_scaling(reader, cfg, path, number))


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
            if t.name != ROPE_TABLE
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
