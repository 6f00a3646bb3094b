"""GGUF files compute what the Hugging Face folders compute that they were made of."""

import json
from pathlib import Path

import numpy as np
import pytest
from changed_folders import logits
from family_folders import family_folder
from gguf import GGUFWriter
from safetensors.numpy import load_file
from tiny_gguf import to_llama_cpp

LLAMA_CPP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.": "attn_",
    "mlp.": "ffn_",
    "_proj": "",
}


def as_gguf(folder: Path, path: Path) -> Path:
    """A golden checkpoint as llama.cpp's convert_hf_to_gguf.py writes it, in float32."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    theta = rope.get("rope_theta") or config["rope_theta"]
    arch, kind = config["model_type"], rope.get("rope_type", rope.get("type", "default"))
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer = GGUFWriter(path, arch)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(width)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if kind == "llama3":
        frequency = theta ** (-np.arange(0, width, 2) / width)
        turns = rope["original_max_position_embeddings"] * frequency / (2 * np.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        divisors = 1 / ((1 - kept) / rope["factor"] + kept)
        assert len(np.unique(divisors)) > 2
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    elif kind != "default":
        original = config["max_position_embeddings"]
        writer.add_string(f"{arch}.rope.scaling.type", kind)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope.get("original_max_position_embeddings", original))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    words = ["<|endoftext|>", "a", "b", "ab", *(f"x{i}" for i in range(config["vocab_size"] - 4))]
    writer.add_token_list(words)
    writer.add_token_types([3] + [1] * (len(words) - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    for path_ in sorted(folder.glob("*.safetensors")):
        for name, value in load_file(path_).items():
            if arch == "llama" and "q_proj" in name:
                value = to_llama_cpp(value, heads)
            elif arch == "llama" and "k_proj" in name:
                value = to_llama_cpp(value, kv_heads)
            for old, new in LLAMA_CPP.items():
                name = name.replace(old, new)
            writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "case", ["llama-linear", "llama-llama3", "qwen2-default", "qwen2-yarn", "qwen3-linear-bfloat16"]
)
def test_a_gguf_file_computes_what_the_folder_it_was_made_of_computes(tmp_path, case):
    folder = family_folder(case, tmp_path / "model")
    got, want = logits(as_gguf(folder, tmp_path / "model.gguf")), logits(folder)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
