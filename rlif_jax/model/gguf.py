"""Reads a decoder's configuration and weights from a GGUF file.

GGUF is llama.cpp's format: metadata, then tensors, each in its own quantisation. Tensors are
dequantised one by one straight into the stacked arrays, so that no second copy of the model exists
in memory. The format and the names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, quants

from rlif_jax.errors import UserError
from rlif_jax.model.decoder import ModelConfig, ParamSpec, param_specs

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

    def number(key: str, default: float | None = None, kind: Any = int) -> Any:
        value = metadata(reader, f"{arch}.{key}", default)
        if value is None:
            raise UserError(f"model file {path} lacks the metadata {arch}.{key}; fetch it again")
        if not isinstance(value, kind) or not 0 < value < 2**31:
            raise UserError(f"model file {path} has {arch}.{key} {value!r}, not a usable number")
        return value

    scaling = metadata(reader, f"{arch}.rope.scaling.type", "none")
    if scaling != "none":
        raise UserError(
            f"model file {path} asks for rope scaling {scaling!r}; only none is supported"
        )
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
    return ModelConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        embed=embed,
        ffn=number("feed_forward_length"),
        layers=layers,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", embed // heads),
        rope_theta=float(number("rope.freq_base", 10000.0, int | float)),
        rms_eps=float(number("attention.layer_norm_rms_epsilon", kind=int | float)),
        tied="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        max_positions=number("context_length"),
        eos_ids=_eos_ids(reader),
    )


def _eos_ids(reader: GGUFReader) -> tuple[int, ...]:
    """Ids that end a completion: those the metadata names, and control tokens that end a turn."""
    ids = {metadata(reader, f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")}
    kinds = metadata(reader, "tokenizer.ggml.token_type", [])
    tokens = metadata(reader, "tokenizer.ggml.tokens", [])
    pairs = enumerate(zip(tokens, kinds, strict=False))
    ids |= {i for i, (token, kind) in pairs if kind == _CONTROL and token in _END_TOKENS}
    return tuple(sorted(ids - {None}))


def read_params(reader: GGUFReader, cfg: ModelConfig, path: str | Path) -> Callable:
    """A `make(name, spec)` for `Decoder` that dequantises a parameter to float32 NumPy when asked.

    Before any is converted, every tensor of the file is checked to be used exactly once, of the
    expected shape and of a known quantisation; raises UserError naming those that are not.
    """
    llama = metadata(reader, "general.architecture") == "llama"
    tensors = {t.name: t for t in reader.tensors}
    specs = param_specs(cfg)
    sources = {name: _tensor_names(name, cfg.layers) for name in specs}
    _check(tensors, specs, sources, path)

    def make(name: str, spec: ParamSpec) -> np.ndarray:
        out = np.empty(spec.shape, np.float32)
        stacked = out if spec.axes[0] == "layer" else out[None]
        leaf = name.removeprefix("layers.")
        for layer, source in enumerate(sources[name]):
            tensor = tensors[source]
            value = quants.dequantize(tensor.data, tensor.tensor_type)
            stacked[layer] = _from_llama_cpp(leaf, value, stacked.shape[1:], permuted=llama)
        return out

    return make


def _tensor_names(name: str, layers: int) -> list[str]:
    """The GGUF tensors that make up a parameter, in layer order."""
    if name in _GLOBAL_NAMES:
        return [_GLOBAL_NAMES[name]]
    leaf = _LAYER_NAMES[name.removeprefix("layers.")]
    return [f"blk.{i}.{leaf}" for i in range(layers)]


def _file_shape(name: str, spec: ParamSpec) -> tuple[int, ...]:
    """The shape of a parameter's tensor in the file: [out, in] matrices with heads flattened."""
    shape = spec.shape[1:] if spec.axes[0] == "layer" else spec.shape
    match name.removeprefix("layers."):
        case "q" | "k" | "v":
            return (shape[1] * shape[2], shape[0])
        case "o":
            return (shape[2], shape[0] * shape[1])
        case "gate" | "up" | "down":
            return (shape[1], shape[0])
        case "q_bias" | "k_bias" | "v_bias":
            return (shape[0] * shape[1],)
        case _:
            return shape


def _check(tensors: dict, specs: dict[str, ParamSpec], sources: dict, path: str | Path) -> None:
    """Raise UserError with every missing, unused, mis-shaped and unknown-type tensor."""
    problems = []
    for name, spec in specs.items():
        want = _file_shape(name, spec)
        for source in sources[name]:
            if source not in tensors:
                problems.append(f"{source} is missing")
                continue
            tensor = tensors[source]
            shape = tuple(int(n) for n in reversed(tensor.shape))
            if shape != want:
                problems.append(f"{source} has shape {shape}, not {want}")
            kind = GGMLQuantizationType(tensor.tensor_type).name
            if kind not in QUANTISATIONS:
                known = ", ".join(QUANTISATIONS)
                problems.append(f"{source} is stored as {kind}, which is not among {known}")
    used = {source for group in sources.values() for source in group}
    problems += [f"{name} belongs to no parameter" for name in tensors if name not in used]
    if problems:
        shown = "; ".join(problems[:8])
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise UserError(f"model file {path} does not fit its own metadata: {shown}{more}")


def _from_llama_cpp(leaf: str, value: np.ndarray, shape: tuple[int, ...], permuted: bool):
    """One layer's tensor in this decoder's layout.

    llama.cpp stores [out, in]. For the llama architecture it also interleaves each head's rotary
    pairs ((0, A/2), (1, A/2 + 1), ...) in q and k, which is undone here.
    """
    match leaf:
        case "q" | "k":
            embed, heads, width = shape
            if permuted:
                value = value.reshape(heads, width // 2, 2, embed).swapaxes(1, 2)
            return value.reshape(heads * width, embed).T.reshape(shape)
        case "v" | "o" | "gate" | "up" | "down":
            return value.T.reshape(shape)
        case "q_bias" | "k_bias" if permuted:
            heads, width = shape
            return value.reshape(heads, width // 2, 2).swapaxes(1, 2).reshape(shape)
        case _:
            return value.reshape(shape)
