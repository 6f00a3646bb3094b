"""config.json: what the decoder does not compute and what makes no sense is refused by name."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hf_configs import ABSENT, CASES, CLASSES, LEAST, LLAMA3, YARN, minimal, read

from rlif_jax.errors import UserError
from rlif_jax.model.rope import frequencies
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config


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
    message = str(error.value)
    assert message.startswith(f"config.json in {tmp_path}: ")
    assert "; choose a " in message or "; correct it" in message


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
        with pytest.raises(UserError, match=r"sliding-window attention|layer_types '"):
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
        (YARN | {"rope_theta": math.inf}, "rope_theta is inf, not a usable number"),
        (YARN | {"rope_theta": 10**400}, r"rope_theta is 10+\.\.\.0+, not a usable number"),
        ({"type": "linear", "factor": 10**400}, r"factor is 10+\.\.\.0+, not a usable number"),
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
SENSELESS = ["7", -1, 0, True, False, math.nan, math.inf, -math.inf, 10**40, 1e300, [], {}, [8]]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_none_is_named_with_its_value(tmp_path, name):
    whole = [1e-300] if name == "rms_norm_eps" else [8.0, 2**31]
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
    key = "rope_scaling" if "rope_scaling" in values else "rope_parameters"
    changed = values[key] if data.draw(st.booleans()) else values
    changed[data.draw(st.sampled_from(sorted(changed)))] = data.draw(VALUES)
    try:
        cfg = read(tmp_path_factory.getbasetemp(), values)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return
    assert np.isfinite(frequencies(dataclasses.replace(cfg, head_dim=16))).all()
