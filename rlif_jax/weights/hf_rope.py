"""Rotary scaling in config.json, read and written."""

import math
from typing import Any

from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import RopeScaling
from rlif_jax.weights.hf_fields import Fields

_ROPE_NEEDS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}


def read_rope(fields: Fields, positions: int) -> tuple[float, RopeScaling | None]:
    """Theta and scaling: `rope_theta` and `rope_scaling`, or `rope_parameters` (transformers 5).

    `positions` are those that the model may see. Which of two entries wins, and every default, is
    as in transformers 5. Raises UserError for an unknown kind and for invalid numbers.
    """
    values = fields.values
    given = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise fields.refuse(f"rope scaling is {shown(given)}, not one set of parameters")
    rope = Fields({"rope_theta": values.get("rope_theta"), **given}, f"{fields.where}, rope")
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
    return theta, _yarn(rope, factor, original)


def _yarn(rope: Fields, factor: float, original: int) -> RopeScaling:
    fast = rope.number("beta_fast", 32.0, kind=float)
    slow = rope.number("beta_slow", 1.0, kind=float)
    if fast < slow:
        raise rope.refuse(f"beta_fast {fast} is below beta_slow {slow}")
    return RopeScaling(
        "yarn",
        factor=factor,
        original_positions=original,
        beta_fast=fast,
        beta_slow=slow,
        truncate="truncate" not in rope.values or rope.flag("truncate"),
        attention_factor=_yarn_attention_factor(rope, factor),
    )


def _yarn_attention_factor(rope: Fields, factor: float) -> float:
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


def write_rope(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """The value of `rope_scaling`; UserError for a table, which config.json cannot express."""
    if scaling is None:
        return None
    match scaling.kind:
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
