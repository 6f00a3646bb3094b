"""GGUF files compute what the Hugging Face folders compute that they were made of."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import load_file
from support.changed_folders import logits
from support.family_folders import family_folder
from support.tiny_gguf import to_llama_cpp

from rlif_jax.errors import UserError
from rlif_jax.model.config import RopeScaling
from rlif_jax.weights.gguf import read_config
from rlif_jax.weights.gguf_header import open_gguf

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


def as_gguf(folder: Path, path: Path, rope_metadata: dict[str, Any] | None = None) -> Path:
    """A golden checkpoint as llama.cpp's convert_hf_to_gguf.py writes it, in float32.

    `rope_metadata` stands in place of all that it writes under `rope.`.
    """
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
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    written = {"dimension_count": width, "freq_base": theta}
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
        original = rope.get("original_max_position_embeddings", original)
        written |= {"scaling.type": kind, "scaling.factor": rope["factor"]}
        written |= {"scaling.original_context_length": original}
    add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
    for name, value in (written if rope_metadata is None else rope_metadata).items():
        add[type(value)](f"{arch}.rope.{name}", value)
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


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return family_folder("llama-linear", tmp_path_factory.mktemp("rope") / "model")


def read(path: Path):
    return read_config(open_gguf(path), path)


@pytest.mark.parametrize("name", ["scaling.factor", "scale_linear"])
def test_scaling_of_no_named_type_is_linear(llama, tmp_path, name):
    """As in llama.cpp, by the factor's name of today and by the older one."""
    config = json.loads((llama / "config.json").read_text())
    rope = config.get("rope_scaling") or config["rope_parameters"]
    theta = float(rope.get("rope_theta") or config["rope_theta"])
    given = {"freq_base": theta, name: float(rope["factor"])}
    path = as_gguf(llama, tmp_path / "model.gguf", given)
    assert read(path).rope_scaling == RopeScaling("linear", factor=rope["factor"])
    want = logits(llama)
    np.testing.assert_allclose(logits(path), want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    ("given", "scaling"),
    [
        ({}, None),
        ({"scaling.finetuned": 0, "scaling.original_context_length": 64}, None),
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
        ({"scaling.type": "linear"}, None),
        ({"scaling.type": "linear", "scaling.factor": 0.0}, None),
        ({"scale_linear": 1.0}, None),
        ({"scaling.factor": 1.0, "scale_linear": 4.0}, None),
        ({"scaling.type": "linear", "scale_linear": 4.0}, RopeScaling("linear", factor=4.0)),
        ({"scaling.factor": 2.0, "scale_linear": 4.0}, RopeScaling("linear", factor=2.0)),
        (
            {"scaling.type": "yarn", "scale_linear": 4.0, "scaling.yarn_beta_fast": 16.0},
            RopeScaling("yarn", 4.0, 64, beta_fast=16.0, attention_factor=1 + 0.1 * math.log(4)),
        ),
    ],
    ids=str,
)
def test_which_scaling_the_metadata_means(llama, tmp_path, given, scaling):
    assert read(as_gguf(llama, tmp_path / "model.gguf", given)).rope_scaling == scaling


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"dimension_count": 2}, r"rope\.dimension_count 2, but heads are \d+ wide"),
        ({"scaling.factor": -2.0}, r"rope\.scaling\.factor -2\.0, not a usable number"),
        ({"scale_linear": math.nan}, r"rope\.scale_linear nan, not a usable number"),
        ({"scaling.type": "longrope"}, "rope scaling 'longrope'; supported are"),
        ({"scaling.attn_factor": 1.2}, "rope scaling 'linear' with attn_factor; supported are"),
        ({"scaling.type": "yarn", "scaling.yarn_ext_factor": 0.5}, "'yarn' with yarn_ext_factor"),
        ({"freq_base": math.inf}, r"rope\.freq_base inf, not a usable number"),
        ({"freq_base": "10000"}, r"rope\.freq_base '10000', not a usable number"),
        ({"freq_base": 1.0}, r"rope\.freq_base 1\.0, not above 1"),
    ],
    ids=str,
)
def test_rotary_metadata_that_is_not_computed_or_makes_no_sense(llama, tmp_path, given, named):
    with pytest.raises(UserError, match=named):
        read(as_gguf(llama, tmp_path / "model.gguf", given))


def test_a_table_and_a_factor_are_refused(tmp_path):
    folder = family_folder("llama-llama3", tmp_path / "model")
    with pytest.raises(UserError, match=r"'linear' on top of that of its rope_freqs\.weight"):
        read(as_gguf(folder, tmp_path / "model.gguf", {"scaling.factor": 2.0}))


@pytest.mark.parametrize("theta", [3580165449.0, 1e30])
def test_a_theta_beyond_the_integers_is_read(llama, tmp_path, theta):
    """The first is that of published Llama 3 models for a context of a million tokens."""
    path = as_gguf(llama, tmp_path / "model.gguf", {"freq_base": theta})
    assert read(path).rope_theta == np.float32(theta)
