"""A tiny decoder's shape, and GGUF files of it written by the gguf package."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants

from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder

TINY = ModelConfig(
    vocab_size=40,
    embed=32,
    ffn=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    rope_theta=500.0,
    rms_eps=1e-5,
    tied=True,
    max_positions=64,
)

# 3 control tokens, the 4 letters of a small alphabet, two merges, and one user-defined token
TOKENS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "a", "b", "Ġ", "1", "ab", "Ġab", "<tool>"]
TOKEN_TYPES = [3, 3, 3, 1, 1, 1, 1, 1, 1, 4]


def to_llama_cpp(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of q and k, as its convert_hf_to_gguf.py permutes them."""
    out, width = weight.shape[0], weight.shape[0] // heads
    split = weight.reshape(heads, 2, width // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(out, *weight.shape[1:])


def gguf_tensors(model: Decoder, arch: str = "llama") -> dict[str, np.ndarray]:
    """The decoder's weights under llama.cpp's names, in its [out, in] layout."""
    cfg = model.cfg
    w = {name: np.asarray(p[...]) for name, p in vars(model.layers).items() if hasattr(p, "axes")}
    out = {
        "token_embd.weight": np.asarray(model.embed[: cfg.vocab_size]),
        "output_norm.weight": np.asarray(model.final_norm[...]),
    }
    for i in range(cfg.layers):
        q = w["q"][i].reshape(cfg.embed, -1).T
        k = w["k"][i].reshape(cfg.embed, -1).T
        layer = {
            "attn_norm": w["attn_norm"][i],
            "attn_q": to_llama_cpp(q, cfg.heads) if arch == "llama" else q,
            "attn_k": to_llama_cpp(k, cfg.kv_heads) if arch == "llama" else k,
            "attn_v": w["v"][i].reshape(cfg.embed, -1).T,
            "attn_output": w["o"][i].reshape(-1, cfg.embed).T,
            "ffn_norm": w["ffn_norm"][i],
            "ffn_gate": w["gate"][i].T,
            "ffn_up": w["up"][i].T,
            "ffn_down": w["down"][i].T,
        }
        out |= {f"blk.{i}.{name}.weight": np.ascontiguousarray(v) for name, v in layer.items()}
    return out


def write_gguf(
    path: Path,
    tensors: dict[str, np.ndarray],
    cfg: ModelConfig = TINY,
    arch: str = "llama",
    kinds: dict[str, GGMLQuantizationType] | None = None,
    leave_out: tuple[str, ...] = (),
    **changed,
) -> Path:
    """A GGUF file of these tensors; `kinds` quantises by name, `changed` replaces metadata."""
    writer = GGUFWriter(path, arch)
    meta = {
        "block_count": cfg.layers,
        "context_length": cfg.max_positions,
        "embedding_length": cfg.embed,
        "feed_forward_length": cfg.ffn,
        "attention.head_count": cfg.heads,
        "attention.head_count_kv": cfg.kv_heads,
        "attention.key_length": cfg.head_dim,
    }
    for name, value in meta.items():
        if name not in leave_out:
            writer.add_uint32(f"{arch}.{name}", value)
    writer.add_float32(f"{arch}.rope.freq_base", cfg.rope_theta)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", cfg.rms_eps)
    if "rope_scaling" in changed:
        writer.add_string(f"{arch}.rope.scaling.type", changed["rope_scaling"])
    tokens = changed.get("tokens", TOKENS + [f"x{i}" for i in range(cfg.vocab_size - len(TOKENS))])
    writer.add_string("tokenizer.ggml.model", changed.get("tokenizer", "gpt2"))
    writer.add_string("tokenizer.ggml.pre", changed.get("pre", "smollm"))
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", (TOKEN_TYPES + [1] * len(tokens))[: len(tokens)])
    writer.add_array("tokenizer.ggml.merges", changed.get("merges", ["a b", "Ġ ab"]))
    writer.add_uint32("tokenizer.ggml.eos_token_id", changed.get("eos", 1))
    writer.add_uint32("tokenizer.ggml.bos_token_id", 0)
    writer.add_bool("tokenizer.ggml.add_bos_token", changed.get("add_bos", False))
    for name, value in tensors.items():
        kind = (kinds or {}).get(name, GGMLQuantizationType.F32)
        writer.add_tensor(name, quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def positions(mask_BT: np.ndarray) -> jnp.ndarray:
    """Count of real tokens before each column."""
    return jnp.maximum(jnp.cumsum(mask_BT, axis=1) - 1, 0)
