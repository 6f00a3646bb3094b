"""A Hugging Face config.json, read into a ModelConfig and written from one.

Only what changes the numbers is read. Whatever this decoder would compute differently is refused
by name, before any tensor is opened.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import ModelConfig, RopeScaling
from rlif_jax.model.files import Files

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}

_ROPE_NEEDS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_MOST_LAYERS = 10_000  # refused before anything is sized by it


class _Fields:
    """config.json with typed access: every complaint names the file, the field and its value."""

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where = values, where

    def refuse(self, why: str, remedy: str = "correct it, or fetch the file again") -> UserError:
        return UserError(f"{self.where}: {why}; {remedy}")

    def number(self, name: str, default: float | None = None, *, kind: type = int) -> Any:
        """A positive number; `default` stands in for an absent or null one."""
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise self.refuse(f"{name} is missing")
        right = isinstance(value, int) or (kind is float and isinstance(value, float))
        if not right or isinstance(value, bool) or not (0 < value < 2**31):
            raise self.refuse(f"{name} is {shown(value)}, not a usable number")
        return kind(value)

    def flag(self, name: str) -> bool:
        """A boolean, false when absent or null."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(f"{name} is {shown(value)}, neither true nor false")
        return bool(value)


def read_json(files: Files, name: str) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        UserError: the file is missing, is not JSON or holds something else.
    """
    if name not in files.names():
        raise UserError(
            f"model folder {files.location} has no {name}; give the folder that holds the model's "
            "config.json and weights"
        )
    try:
        value = json.loads(files.read(name).decode())  # UTF-8 alone, as transformers reads it
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{name} in {files.location} is not JSON ({error}); fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{name} in {files.location} is not a JSON object; fetch it again")
    return value


def read_hf_config(files: Files) -> ModelConfig:
    """The decoder of a model folder; `token_ids`, `dtype` and `remat` are the caller's to set.

    Raises:
        UserError: an unknown architecture, a feature that this decoder does not have, or a field
            that is missing or makes no sense.
    """
    values = read_json(files, "config.json")
    fields = _Fields(values, f"config.json in {files.location}")
    family = _family(fields)
    if unsupported := list(_unsupported(fields)):
        raise fields.refuse(
            f"this model needs what is not supported: {', '.join(unsupported)}",
            "choose a checkpoint without it",
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
    theta, scaling = _rope(fields, positions)
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


def _family(fields: _Fields) -> str:
    """The family by `architectures`, or by `model_type` where that is absent."""
    named = fields.values.get("architectures") or []
    model_type = fields.values.get("model_type")
    known = ", ".join(ARCHITECTURES)
    if isinstance(named, list) and len(named) == 1 and named[0] in list(ARCHITECTURES):
        return ARCHITECTURES[named[0]]
    if not named and model_type in ARCHITECTURES.values():
        return model_type
    asked = named or model_type
    asked = asked[0] if isinstance(asked, list) and len(asked) == 1 else asked
    raise fields.refuse(
        f"architecture {shown(asked)} is not supported", f"choose a model of one of {known}"
    )


def _unsupported(fields: _Fields) -> Iterator[str]:
    """What this model asks for and this decoder does not have."""
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


def _layer_types(fields: _Fields) -> list[Any]:
    """The kind of attention of each layer, where config.json lists it."""
    kinds = fields.values.get("layer_types") or []
    if not isinstance(kinds, list):
        raise fields.refuse(f"layer_types is {shown(kinds)}, not a list")
    return kinds


def _slides(fields: _Fields) -> bool:
    """Whether any layer attends to a sliding window only; a list of layer types goes before."""
    values = fields.values
    windowed = fields.flag("use_sliding_window") and values.get("sliding_window", 4096) is not None
    if _layer_types(fields) or not windowed:
        return False
    first = values.get("max_window_layers", 28)
    return first == 0 or fields.number("max_window_layers", 28) < fields.number("num_hidden_layers")


def _rope(fields: _Fields, positions: int) -> tuple[float, RopeScaling | None]:
    """Theta and scaling: `rope_theta` and `rope_scaling`, or `rope_parameters` (transformers 5).

    Which of two entries wins, and every default, is as in transformers 5.
    """
    values = fields.values
    given = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise fields.refuse(f"rope scaling is {shown(given)}, not one set of parameters")
    rope = _Fields({"rope_theta": values.get("rope_theta"), **given}, f"{fields.where}, rope")
    named = "rope_theta" in given or "rope_theta" in values
    theta = rope.number("rope_theta", None if named else 10000.0, kind=float)
    if theta <= 1:
        raise rope.refuse(f"rope_theta is {theta}, but must be above 1")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind not in list(_ROPE_NEEDS):
        raise fields.refuse(
            f"rope scaling {shown(kind)} is not supported",
            f"choose a checkpoint with one of default, {', '.join(_ROPE_NEEDS)}",
        )
    for name in _ROPE_NEEDS[kind]:
        rope.number(name, kind=float)
    name = "original_max_position_embeddings"
    original = fields.number(name, rope.number(name, positions))
    factor = rope.number("factor", kind=float)
    if factor < 1:
        raise rope.refuse(f"factor is {factor}, but must be at least 1")
    if kind == "linear":
        return theta, RopeScaling("linear", factor=factor)
    if kind == "llama3":
        low, high = (rope.number(f"{x}_freq_factor", kind=float) for x in ("low", "high"))
        if low >= high:
            raise rope.refuse(f"low_freq_factor {low} is not below high_freq_factor {high}")
        return theta, RopeScaling(
            "llama3",
            factor=factor,
            original_positions=original,
            low_freq_factor=low,
            high_freq_factor=high,
        )
    fast, slow = (
        rope.number("beta_fast", 32.0, kind=float),
        rope.number("beta_slow", 1.0, kind=float),
    )
    if fast < slow:
        raise rope.refuse(f"beta_fast {fast} is below beta_slow {slow}")
    return theta, RopeScaling(
        "yarn",
        factor=factor,
        original_positions=original,
        beta_fast=fast,
        beta_slow=slow,
        truncate="truncate" not in given or rope.flag("truncate"),
        attention_factor=_yarn_attention_factor(rope, factor),
    )


def _yarn_attention_factor(rope: _Fields, factor: float) -> float:
    """The factor on cosine and sine: as given, or 0.1 m ln(factor) + 1 (arXiv 2309.00071, 3.4)."""
    if rope.values.get("attention_factor") is not None:
        return rope.number("attention_factor", kind=float)

    def magnitude(m: float) -> float:
        return 0.1 * m * math.log(factor) + 1 if factor > 1 else 1.0

    names = ("mscale", "mscale_all_dim")
    if all(rope.values.get(name) not in (None, 0) for name in names):
        m, m_all = (rope.number(name, kind=float) for name in names)
        return magnitude(m) / magnitude(m_all)
    return magnitude(1.0)


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

    `dtype` is the type of its tensors, "float32" or "bfloat16". In the form of transformers 4,
    which transformers 5, vLLM and llama.cpp read as well. Raises UserError for what config.json
    cannot express: a table of rotary divisors, biases or norms that the family does not have.
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
        "rope_scaling": _hf_rope(cfg.rope_scaling),
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


def _hf_rope(scaling: RopeScaling | None) -> dict[str, Any] | None:
    match None if scaling is None else scaling.kind:
        case None:
            return None
        case "linear":
            return {"rope_type": "linear", "factor": scaling.factor}
        case "llama3":
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_positions,
            }
        case "yarn":
            return {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.original_positions,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "truncate": scaling.truncate,
                "attention_factor": scaling.attention_factor,
            }
    raise UserError(
        "this GGUF file keeps its rotary scaling as a table (rope_freqs.weight), which config.json "
        "cannot express; convert the Hugging Face checkpoint it was made from"
    )
