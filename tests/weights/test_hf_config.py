"""config.json: read as transformers reads it, and written so that it reads back."""

import dataclasses
import json
import math
from typing import Any

import pytest
from support.hf_configs import ABSENT, CASES, CLASSES, LLAMA3, PUBLISHED, YARN, minimal, read

from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig, RopeScaling, kv_bytes_per_token, param_count
from rlif_jax.model.rope import frequencies
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import hf_config, read_hf_config


def as_transformers(cfg: ModelConfig) -> dict[str, Any]:
    """What transformers' configuration classes have as well, under their names."""
    return {
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.embed,
        "intermediate_size": cfg.ffn,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "max_position_embeddings": cfg.max_positions,
        "rms_norm_eps": cfg.rms_eps,
        "tie_word_embeddings": cfg.tied,
    }


def assert_as_transformers(cfg: ModelConfig, values: dict[str, Any]) -> None:
    """The same numbers as transformers' own class reads from the same fields."""
    theirs = CLASSES[cfg.family].from_dict(json.loads(json.dumps(values)))
    theirs.standardize_rope_params()  # as every rule of the frequencies begins
    ours = as_transformers(cfg)
    assert ours == {name: getattr(theirs, name) for name in ours}
    # as modeling_llama.py, modeling_qwen2.py and modeling_qwen3.py take it
    width = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert cfg.head_dim == width
    rope, scaling = theirs.rope_parameters, cfg.rope_scaling
    assert cfg.rope_theta == rope["rope_theta"]
    assert rope["rope_type"] == ("default" if scaling is None else scaling.kind)
    if scaling is None:
        return
    assert scaling.factor == rope["factor"]
    if scaling.kind != "linear":
        assert scaling.original_positions == rope["original_max_position_embeddings"]
    named = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_fast", "beta_slow")}
    for name in named.get(scaling.kind, ()):
        if name in rope:
            assert getattr(scaling, name) == rope[name]


@pytest.mark.parametrize("name", [*PUBLISHED, *CASES])
def test_published_and_saved_configs_are_read_as_transformers_reads_them(name):
    folder = (PUBLISHED | CASES)[name]
    assert_as_transformers(
        read_hf_config(LocalFiles(folder)), json.loads((folder / "config.json").read_text())
    )


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"rope_theta": 1e6, "rms_norm_eps": 1e-5, "tie_word_embeddings": True},
        {"head_dim": 24, "max_position_embeddings": 77},
        {"num_key_value_heads": None},
        {"rope_scaling": None, "rope_theta": 500},
        {"rope_theta": 3580165449.0},  # of published Llama 3 models for a million tokens
        {"rope_theta": 10**12, "rms_norm_eps": 1e-30},
        {"rope_scaling": {}, "rope_parameters": {}},
        {"rope_scaling": {"type": "linear", "factor": 2}},
        {"rope_scaling": {"factor": 2.0}},
        {"rope_scaling": {"rope_type": "default", "factor": 2.0}},
        {"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 3.0}},
        {"rope_scaling": YARN, "rope_theta": 1e6},
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2.0}},
        {"rope_scaling": YARN, "original_max_position_embeddings": 32},
        {"rope_scaling": LLAMA3, "max_position_embeddings": 4096},
        {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}, "rope_theta": 9.0},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 9.0},
        {"rope_parameters": YARN | {"rope_theta": 1e6}},
        {"rope_parameters": {"rope_theta": 7.0}, "rope_scaling": YARN},
        {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", CLASSES)
def test_defaults_and_both_forms_of_rope_are_those_of_transformers(tmp_path, family, changed):
    values = minimal(family, **changed)
    assert_as_transformers(read(tmp_path, values), values)


def test_heads_that_llama_does_not_name(tmp_path):
    values = minimal("llama", num_key_value_heads=ABSENT)
    assert_as_transformers(read(tmp_path, values), values)
    with pytest.raises(UserError, match="num_key_value_heads is missing"):  # 32 to transformers
        read(tmp_path, minimal("qwen2", num_key_value_heads=ABSENT))


def test_the_family_by_model_type_where_no_architecture_is_named(tmp_path):
    for family in CLASSES:
        values = minimal(family, architectures=ABSENT, model_type=family)
        cfg = read(tmp_path, values)
        assert (cfg.family, cfg.qkv_bias, cfg.qk_norm) == (
            family,
            family == "qwen2",
            family == "qwen3",
        )


@pytest.mark.parametrize(
    ("name", "parameters", "cache"),
    [
        ("DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000, 28_672),
        ("Qwen2.5-Coder-7B-Instruct", 7_615_616_512, 57_344),
        ("Qwen3-4B", 4_022_468_096, 147_456),
        ("Llama-3.2-1B-Instruct", 1_235_814_400, 32_768),
    ],
)
def test_known_totals_of_published_models(name, parameters, cache):
    cfg = read_hf_config(LocalFiles(PUBLISHED[name]))
    assert param_count(cfg) == parameters
    assert kv_bytes_per_token(cfg) == cache  # bfloat16: 4 K A bytes a layer
    assert kv_bytes_per_token(cfg, itemsize=4) == 2 * cache


ROPES = (
    None,
    RopeScaling("linear", factor=3.5),
    RopeScaling("llama3", 32.0, 8192, low_freq_factor=1.5, high_freq_factor=5.0),
    RopeScaling(
        "yarn",
        4.0,
        64,
        beta_fast=16.0,
        beta_slow=2.0,
        truncate=False,
        attention_factor=0.8,
    ),
    RopeScaling("yarn", 4.0, 32, attention_factor=1 + 0.1 * math.log(4)),
)


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_written_reads_back_the_same_here_and_in_transformers(tmp_path, family, rope, tied):
    cfg = ModelConfig(
        **{"vocab_size": 51, "embed": 24, "ffn": 20, "layers": 2, "heads": 6, "kv_heads": 2},
        head_dim=16,
        family=family,
        rope_theta=1e6,
        rope_scaling=rope,
        rms_eps=1e-5,
        tied=tied,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        max_positions=77,
    )
    values = hf_config(cfg, "bfloat16")
    assert read(tmp_path, values) == cfg
    assert_as_transformers(cfg, values)
    assert values["torch_dtype"] == "bfloat16"


def test_what_no_config_json_can_say_is_refused():
    cfg = ModelConfig(51, 24, 20, 2, 6, 2, 16)
    table = dataclasses.replace(cfg, rope_scaling=RopeScaling("table", divisors=(1.0,) * 8))
    with pytest.raises(UserError, match=r"rope_freqs\.weight"):
        hf_config(table, "float32")
    with pytest.raises(UserError, match="llama has biases"):
        hf_config(dataclasses.replace(cfg, qkv_bias=True), "float32")
    with pytest.raises(UserError, match="qwen2 has biases or norms"):
        hf_config(dataclasses.replace(cfg, family="qwen2"), "float32")


def test_end_of_sequence_of_the_generation_settings_goes_first(tmp_path):
    values = minimal(eos_token_id=7)
    assert read(tmp_path, values).eos_ids == (7,)
    for settings, want in [({"eos_token_id": [9, 3, 9]}, (3, 9)), ({}, (7,)), ({"a": 1}, (7,))]:
        (tmp_path / "generation_config.json").write_text(json.dumps(settings))
        assert read(tmp_path, values).eos_ids == want


def test_frequencies_of_llama_3_1_by_hand(tmp_path):
    """128 channels, theta 5e5: waves up to 8192 / 4 stay, those over 8192 are divided by 8."""
    rope = LLAMA3 | {"original_max_position_embeddings": 8192}
    values = minimal(head_dim=128, rope_theta=5e5, rope_scaling=rope)
    got = frequencies(read(tmp_path, values))
    for i in range(64):
        plain = 500_000 ** (-2 * i / 128)
        wave = 2 * math.pi / plain
        if wave > 8192:
            want = plain / 8
        elif wave < 2048:
            want = plain
        else:
            smooth = (8192 / wave - 1) / 3
            want = (1 - smooth) * plain / 8 + smooth * plain
        assert got[i] == pytest.approx(want, rel=1e-6), i
    assert got[28] == pytest.approx(500_000 ** (-56 / 128), rel=1e-6)
    assert got[35] == pytest.approx(500_000 ** (-70 / 128) / 8, rel=1e-6)


def test_frequencies_of_qwen_with_yarn_by_hand(tmp_path):
    """128 channels, theta 1e6, 32,768 positions: the ramp runs from pair 23 to pair 40.

    32 turns within 32,768 positions: 128 ln(32768 / (64 pi)) / (2 ln 1e6) = 23.6; one: 39.7.
    """
    rope = YARN | {"original_max_position_embeddings": 32768}
    values = minimal("qwen2", head_dim=128, rope_theta=1e6, rope_scaling=rope)
    cfg = read(tmp_path, values)
    got = frequencies(cfg)
    for i in range(64):
        plain = 1_000_000 ** (-2 * i / 128)
        divided = min(max((i - 23) / (40 - 23), 0), 1)
        assert got[i] == pytest.approx(plain * (1 - divided + divided / 4), rel=1e-6), i
    assert cfg.rope_scaling.attention_factor == pytest.approx(1.1386294)  # 0.1 ln 4 + 1
