"""config.json: read as transformers reads it, written so that it reads back, refused by name."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig, RopeScaling, kv_bytes_per_token, param_count
from rlif_jax.model.files import LocalFiles
from rlif_jax.model.hf_config import hf_config, read_hf_config
from rlif_jax.model.rope import frequencies

GOLDENS = Path(__file__).parent.parent / "goldens"
PUBLISHED = {path.name: path for path in (GOLDENS / "configs").iterdir() if path.is_dir()}
CASES = {path.name: path for path in (GOLDENS / "families").iterdir()}
CLASSES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
NAMES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

LEAST = {
    "vocab_size": 51,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ABSENT = object()


def minimal(family: str = "llama", **changed) -> dict[str, Any]:
    """The fields that must be there, some of them changed or ABSENT."""
    values = {"architectures": [NAMES[family]], **LEAST, **changed}
    return {key: value for key, value in values.items() if value is not ABSENT}


def read(folder: Path, values: dict[str, Any]) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(values))
    return read_hf_config(LocalFiles(folder))


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


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "architecture 'GemmaForCausalLM'"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "architecture 'Qwen3MoeForCausalLM'"),
        ({"architectures": ["LlamaForCausalLM", "X"]}, r"architecture \['LlamaForCausalLM', 'X'\]"),
        ({"architectures": "LlamaForCausalLM"}, "architecture 'LlamaForCausalLM'"),
        ({"architectures": [{}]}, r"architecture \{\}"),
        ({"architectures": [], "model_type": "mamba"}, "architecture 'mamba'"),
        ({"architectures": None, "model_type": []}, r"architecture \[\]"),
        ({"architectures": ABSENT}, "architecture None.*LlamaForCausalLM, Qwen2"),
        ({"num_experts": 60}, r"mixture of experts \(num_experts 60\)"),
        ({"num_local_experts": 8}, r"mixture of experts \(num_local_experts 8\)"),
        ({"n_routed_experts": 64}, r"mixture of experts \(n_routed_experts 64\)"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantised weights \('gptq'\)"),
        ({"quantization_config": {"bits": 4}}, r"quantised weights \(None\)"),
        ({"quantization_config": "fp8"}, r"quantised weights \('fp8'\)"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"mlp_bias": "yes"}, "mlp_bias is 'yes', neither true nor false"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"hidden_act": None}, "hidden_act None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor 0.25"),
        ({"rope_scaling": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor 0.25"),
        ({"hidden_act": "relu", "mlp_bias": True}, "hidden_act 'relu'.*mlp_bias"),
    ],
    ids=str,
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(tmp_path, changed, named):
    with pytest.raises(UserError, match=named) as error:
        read(tmp_path, minimal(**changed))
    assert (
        f"config.json in {tmp_path}" in str(error.value)
        and "choose" in str(error.value)
        or ("correct it" in str(error.value))
    )


WINDOW = {"use_sliding_window": True, "sliding_window": 8}


@pytest.mark.parametrize(
    ("changed", "slides"),
    [
        ({"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 0}, False),
        ({"sliding_window": 8, "max_window_layers": 0}, False),
        (WINDOW | {"max_window_layers": 3}, False),
        (WINDOW | {"max_window_layers": 2}, True),
        (WINDOW | {"max_window_layers": 0}, True),
        (WINDOW, False),  # the default, 28 layers, is more than there are
        (WINDOW | {"num_hidden_layers": 29}, True),
        (WINDOW | {"sliding_window": None, "max_window_layers": 0}, False),
        ({"use_sliding_window": True, "max_window_layers": 0}, True),  # of 4096 by default
        ({"layer_types": ["full_attention"] * 3} | WINDOW | {"max_window_layers": 0}, False),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, True),
        ({"layer_types": ["full_attention", "linear_attention", "full_attention"]}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_sliding_window_is_refused_where_a_layer_uses_it(tmp_path, family, changed, slides):
    values = minimal(family, **changed)
    kinds = CLASSES[family].from_dict(dict(values)).layer_types
    assert any(kind != "full_attention" for kind in kinds) == slides
    if slides:
        with pytest.raises(UserError, match="sliding-window attention|layer_types '"):
            read(tmp_path, values)
    else:
        assert read(tmp_path, values).layers == values["num_hidden_layers"]


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"type": "dynamic", "factor": 2.0}, "rope scaling 'dynamic' is not supported"),
        ({"rope_type": "longrope", "factor": 2.0}, "rope scaling 'longrope'"),
        ({"type": "mrope", "mrope_section": [1, 2]}, "rope scaling 'mrope'"),
        ({"type": "su"}, "rope scaling 'su'.*choose.*default, linear, llama3, yarn"),
        ({"rope_type": None}, "rope scaling None"),
        ({"rope_type": ["yarn"]}, r"rope scaling \['yarn'\]"),
        ({"full_attention": {"rope_type": "default"}}, "not one set of parameters"),
        ("linear", "rope scaling is 'linear', not one set"),
        ({"type": "linear"}, "rope: factor is missing"),
        ({"type": "yarn", "factor": "4"}, "rope: factor is '4', not a usable number"),
        ({"type": "yarn", "factor": 0}, "rope: factor is 0,"),
        ({"type": "linear", "factor": 0.5}, "rope: factor is 0.5, but must be at least 1"),
        ({"type": "linear", "factor": True}, "rope: factor is True"),
        ({"type": "linear", "factor": math.nan}, "rope: factor is nan"),
        ({"type": "linear", "factor": math.inf}, "rope: factor is inf"),
        (LLAMA3 | {"low_freq_factor": None}, "low_freq_factor is missing"),
        (LLAMA3 | {"high_freq_factor": 1.0}, "low_freq_factor 1.0 is not below high_freq_factor"),
        (LLAMA3 | {"original_max_position_embeddings": 8192.5}, "8192.5, not a usable number"),
        (YARN | {"original_max_position_embeddings": -1}, "original_max_position_embeddings is -1"),
        (YARN | {"beta_fast": 1, "beta_slow": 32}, "beta_fast 1.0 is below beta_slow 32.0"),
        (YARN | {"attention_factor": -1.0}, "attention_factor is -1.0"),
        (YARN | {"mscale": "1", "mscale_all_dim": 1.0}, "mscale is '1'"),
        (YARN | {"truncate": "false"}, "truncate is 'false', neither true nor false"),
        (YARN | {"rope_theta": 1.0}, "rope_theta is 1.0, but must be above 1"),
        (YARN | {"rope_theta": None}, "rope_theta is missing"),
        (YARN | {"rope_theta": -5.0}, "rope_theta is -5.0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rotary_settings_that_are_unknown_or_make_no_sense(tmp_path, key, rope, named):
    with pytest.raises(UserError, match=named):
        read(tmp_path, minimal("qwen3", **{key: rope}))


def test_theta_of_null_is_refused_as_it_is_by_transformers(tmp_path):
    with pytest.raises(UserError, match="rope_theta is missing"):
        read(tmp_path, minimal(rope_theta=None))


NUMBERS = ("hidden_size", "num_hidden_layers", "num_key_value_heads", "max_position_embeddings")
NUMBERS += ("vocab_size", "intermediate_size", "num_attention_heads", "head_dim", "rms_norm_eps")
SENSELESS = ["7", -1, 0, True, False, math.nan, math.inf, -math.inf, 10**30, 1e300, [], {}, [8]]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_none_is_named_with_its_value(tmp_path, name):
    whole = [] if name == "rms_norm_eps" else [8.0]
    for value in [*SENSELESS, *whole]:
        with pytest.raises(UserError) as error:
            read(tmp_path, minimal(**{name: value}))
        assert f"{name} is {value!r}, not a usable number; correct it" in str(error.value)


@pytest.mark.parametrize("name", [n for n in LEAST if n != "num_key_value_heads"])
def test_a_missing_number_is_named(tmp_path, name):
    for value in (ABSENT, None):
        with pytest.raises(UserError, match=f"{name} is missing"):
            read(tmp_path, minimal(**{name: value}))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 .* do not fit"),
        ({"num_key_value_heads": 16}, "num_key_value_heads 16 .* do not fit"),
        ({"head_dim": 7}, "head_dim 7 do not fit"),
        ({"hidden_size": 66}, "hidden_size 66.*heads must divide hidden_size"),
        ({"hidden_size": 4}, "hidden_size 4.*heads must divide hidden_size"),
        ({"num_hidden_layers": 2**30}, "num_hidden_layers is 1073741824, more than"),
        ({"tie_word_embeddings": "true"}, "tie_word_embeddings is 'true'"),
        ({"layer_types": 7}, "layer_types is 7, not a list"),
        (WINDOW | {"max_window_layers": "21"}, "max_window_layers is '21'"),
        ({"eos_token_id": "</s>"}, r"eos_token_id of .* is \['</s>'\]"),
        ({"eos_token_id": True}, r"eos_token_id of .* is \[True\]"),
        ({"eos_token_id": [2, -1]}, r"eos_token_id of .* is \[2, -1\]"),
        ({"hidden_size": "9" * 10**6}, r"hidden_size is '9+\.\.\.9+', not"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_does_not_fit_together_is_named(tmp_path, changed, named):
    with pytest.raises(UserError, match=named) as error:
        read(tmp_path, minimal("qwen2", **changed))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "has no config.json; give the folder that holds"),
        (b"", "config.json in .* is not JSON"),
        (b"{'a': 1}", "is not JSON.*fetch it again"),
        (b"\xff\xfe", "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"hidden_size": 1' + b"0" * 5000 + b"}", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_is_no_json_object(tmp_path, content, named):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=named):
        read_hf_config(LocalFiles(tmp_path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "yarn", "7"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("type"), inner),
    max_leaves=3,
)


@given(family=st.sampled_from(list(CLASSES)), data=st.data())
def test_any_value_of_any_field_is_read_or_refused(tmp_path_factory, family, data):
    values = json.loads((CASES[f"{family}-yarn"] / "config.json").read_text())
    ropes = [n for n in ("rope_scaling", "rope_parameters") if n in values]
    if data.draw(st.booleans()):
        changed = values[ropes[0]]
    else:
        changed = values
    changed[data.draw(st.sampled_from(sorted(changed)))] = data.draw(VALUES)
    try:
        cfg = read(tmp_path_factory.getbasetemp(), values)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return
    assert np.isfinite(frequencies(dataclasses.replace(cfg, head_dim=16))).all()


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
    for given, want in [({"eos_token_id": [9, 3, 9]}, (3, 9)), ({}, (7,)), ({"a": 1}, (7,))]:
        (tmp_path / "generation_config.json").write_text(json.dumps(given))
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
