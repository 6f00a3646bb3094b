"""A Hugging Face config.json, read into a ModelConfig and written from one.

Only what changes the numbers is read. Whatever this decoder would compute differently is refused
by name, before any tensor is opened.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import ModelConfig
from rlif_jax.storage.files import Files
from rlif_jax.weights.hf_fields import Fields, read_json
from rlif_jax.weights.hf_rope import read_rope, write_rope

Family = Literal["llama", "qwen2", "qwen3"]

ARCHITECTURES: dict[str, Family] = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}

_MOST_LAYERS = 10_000  # refused before anything is sized by it


def read_hf_config(files: Files) -> ModelConfig:
    """The decoder of a model folder; `token_ids`, `dtype` and `remat` are the caller's to set.

    Raises:
        UserError: an unknown architecture, a feature that this decoder lacks, or a field that is
            missing or invalid.
    """
    values = read_json(files, "config.json")
    fields = Fields(values, f"config.json in {files.location}")
    family = _family(fields)
    if unsupported := list(_unsupported(fields)):
        raise fields.refuse(
            f"this model needs unsupported features: {', '.join(unsupported)}",
            "choose a checkpoint without them",
        )
    heads, embed = fields.number("num_attention_heads"), fields.number("hidden_size")
    # An absent number, other than null, is that of the heads for Llama's class only.
    absent = family != "llama" and "num_key_value_heads" not in values
    kv_heads = fields.number("num_key_value_heads", None if absent else heads)
    head_dim = fields.number("head_dim", 128 if family == "qwen3" else max(1, embed // heads))
    split = values.get("head_dim") is None and family != "qwen3"
    if heads % kv_heads or head_dim % 2 or (split and embed % heads):
        raise fields.refuse(
            f"hidden_size {embed}, num_attention_heads {heads}, num_key_value_heads {kv_heads} and "
            f"head_dim {head_dim} do not fit: key/value heads must divide heads, a head must be of "
            "even width, and without a head_dim heads must divide hidden_size"
        )
    layers = fields.number("num_hidden_layers")
    if layers > _MOST_LAYERS:
        raise fields.refuse(f"num_hidden_layers is {layers}, more than {_MOST_LAYERS}")
    positions = fields.number("max_position_embeddings", 2048 if family == "llama" else 32768)
    theta, scaling = read_rope(fields, positions)
    return ModelConfig(
        family=family,
        vocab_size=fields.number("vocab_size"),
        embed=embed,
        ffn=fields.number("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rope_theta=theta,
        rope_scaling=scaling,
        rms_eps=fields.number("rms_norm_eps", 1e-6, kind=float),
        tied=fields.flag("tie_word_embeddings"),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        max_positions=positions,
        eos_ids=_eos_ids(files, values),
    )


def _family(fields: Fields) -> Family:
    """The family by `architectures`, or by `model_type` where that is absent."""
    named = fields.values.get("architectures") or []
    model_type = fields.values.get("model_type")
    known = ", ".join(ARCHITECTURES)
    if isinstance(named, list) and len(named) == 1 and named[0] in list(ARCHITECTURES):
        return ARCHITECTURES[named[0]]
    for family in ARCHITECTURES.values():
        if not named and model_type == family:
            return family
    if not named and not model_type and "config" in fields.values:
        raise fields.refuse(
            "this is the folder of a run, not of a model",
            "give a local run folder with a checkpoint, or the folder that convert made of it",
        )
    asked = named or model_type
    asked = asked[0] if isinstance(asked, list) and len(asked) == 1 else asked
    raise fields.refuse(
        f"architecture {shown(asked)} is not supported", f"choose a model of one of {known}"
    )


def _unsupported(fields: Fields) -> Iterator[str]:
    """Features that this model needs and this decoder lacks."""
    values = fields.values
    activation = values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        yield f"hidden_act {shown(activation)} (only silu is)"
    for name in ("attention_bias", "mlp_bias"):
        if fields.flag(name):
            yield f"{name} (biases beyond those of q, k and v in Qwen2)"
    if _slides(fields):
        yield "sliding-window attention (use_sliding_window)"
    if others := [kind for kind in _layer_types(fields) if kind != "full_attention"]:
        yield f"layer_types {shown(others[0])} (only full_attention is)"
    if values.get("quantization_config"):
        method = values["quantization_config"]
        method = method.get("quant_method") if isinstance(method, dict) else method
        yield f"quantised weights ({shown(method)})"
    experts = [n for n in ("num_experts", "num_local_experts", "n_routed_experts") if values.get(n)]
    if experts:
        yield f"mixture of experts ({experts[0]} {shown(values[experts[0]])})"
    for given in (values, values.get("rope_scaling"), values.get("rope_parameters")):
        partial = given.get("partial_rotary_factor") if isinstance(given, dict) else None
        if partial not in (None, 1):
            yield f"partial_rotary_factor {shown(partial)}"


def _layer_types(fields: Fields) -> list[Any]:
    """The kind of attention of each layer, where config.json lists it."""
    kinds = fields.values.get("layer_types") or []
    if not isinstance(kinds, list):
        raise fields.refuse(f"layer_types is {shown(kinds)}, not a list")
    return kinds


def _slides(fields: Fields) -> bool:
    """Whether any layer attends to a sliding window only; `layer_types` takes precedence."""
    values = fields.values
    windowed = fields.flag("use_sliding_window") and values.get("sliding_window", 4096) is not None
    if _layer_types(fields) or not windowed:
        return False
    first = values.get("max_window_layers", 28)
    return first == 0 or fields.number("max_window_layers", 28) < fields.number("num_hidden_layers")


def _eos_ids(files: Files, values: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids that end a completion: of generation_config.json, or of config.json without one."""
    if "generation_config.json" in files.names():
        values = {"eos_token_id": None, **values} | read_json(files, "generation_config.json")
    ids = values.get("eos_token_id")
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise UserError(
            f"eos_token_id of {files.location} is {shown(ids)}, not a list of token ids; correct "
            "generation_config.json or config.json"
        )
    return tuple(sorted(set(ids)))


def hf_config(cfg: ModelConfig, dtype: str) -> dict[str, Any]:
    """The config.json of a model that has none, such as one from a GGUF file.

    `dtype` is NumPy's name of its tensors' type: float32, bfloat16 or float16. In the form of
    transformers 4, which transformers 5, vLLM and llama.cpp read as well. Raises UserError for what
    config.json cannot express: a table of rotary divisors, biases or norms that the family
    does not have.
    """
    if (cfg.qkv_bias, cfg.qk_norm) != (cfg.family == "qwen2", cfg.family == "qwen3"):
        raise UserError(
            f"this GGUF file's {cfg.family} has biases or norms of q and k that config.json cannot "
            "express; convert the Hugging Face checkpoint it was made from"
        )
    names = {family: architecture for architecture, family in ARCHITECTURES.items()}
    out: dict[str, Any] = {
        "architectures": [names[cfg.family]],
        "model_type": cfg.family,
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.embed,
        "intermediate_size": cfg.ffn,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": cfg.rms_eps,
        "rope_theta": cfg.rope_theta,
        "rope_scaling": write_rope(cfg.rope_scaling),
        "max_position_embeddings": cfg.max_positions,
        "tie_word_embeddings": cfg.tied,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
    }
    if cfg.family == "qwen2":
        del out["attention_bias"]  # Qwen2 always has those of q, k and v
    if cfg.family != "llama":
        out["use_sliding_window"] = False
    return out
