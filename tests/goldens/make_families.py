"""Writes families/CASE: small random checkpoints as transformers saves them, with its own answers.

    python tests/goldens/make_families.py

needs torch and transformers 5. A folder holds what `save_pretrained` leaves (config.json,
generation_config.json, one or more safetensors files) and golden.npz:

    tokens [B, T]; right, left [B, T]: which tokens are real, with padding on that side
    right_logits, left_logits: float32 [real tokens, V], rows in order
    grad:NAME: float32 gradient of the loss to the tensor of that name in the files

The loss is the mean over `right`'s real tokens that follow another of -log p(token). Each family
occurs tied and untied; the values of the flags are in CASES. Cases with a `v4` entry have the
config.json that transformers 4 wrote, as most folders do, and are read back to check it.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
COLUMNS, LENGTHS = 56, (56, 31, 10, 1)  # of tokens, and real ones in each row
WHOLE = "1GB"  # larger than any checkpoint here: one file


@dataclass(frozen=True)
class Case:
    """A checkpoint: family, shape [vocab V, embed D, ffn F, layers L, heads H / K], flags."""

    family: str
    shape: tuple[int, int, int, int, int, int]
    rope: dict
    tied: bool
    more: dict = field(default_factory=dict)  # further fields of the configuration
    v4: str | None = None  # the key that names the rope's kind, in the config.json of version 4
    shard: str = WHOLE
    dtype: torch.dtype = torch.float32
    eos: int | tuple[int, ...] = 2


def rope(kind: str, theta: float, **parameters) -> dict:
    return {"rope_type": kind, "rope_theta": theta, **parameters}


# Theta and the first context are so small that among a head's few frequencies each rule has one.
CASES = {
    "llama-default": Case(
        "llama", (51, 16, 24, 2, 4, 4), rope("default", 10000.0), False, {"rms_norm_eps": 1e-6}
    ),
    "llama-linear": Case(
        "llama",
        (53, 24, 20, 2, 6, 2),
        rope("linear", 500.0, factor=3.0),
        True,
        {"rms_norm_eps": 1e-2},
        v4="type",
    ),
    "llama-llama3": Case(
        "llama",
        (51, 14, 20, 3, 7, 1),
        rope(
            "llama3",
            500.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
        True,
        {"head_dim": 16},
        v4="rope_type",
        shard="8KB",
        eos=(2, 5),
    ),
    "llama-yarn": Case(
        "llama",
        (53, 16, 24, 2, 2, 2),
        rope(
            "yarn",
            50.0,
            factor=4.0,
            original_max_position_embeddings=64,
            beta_fast=4.0,
            attention_factor=0.8,
        ),
        False,
        {"head_dim": 16, "max_position_embeddings": 256},
    ),
    "qwen2-default": Case(
        "qwen2", (53, 28, 24, 2, 7, 1), rope("default", 1000000.0), True, v4="type"
    ),
    "qwen2-yarn": Case(
        "qwen2",
        (51, 24, 20, 2, 3, 1),
        rope("yarn", 50.0, factor=4.0),  # the first context: max_position_embeddings
        False,
        {"max_position_embeddings": 32, "rms_norm_eps": 1e-3},
        v4="type",
    ),
    "qwen3-default": Case(
        "qwen3", (51, 16, 24, 2, 4, 4), rope("default", 500.0), True, {"head_dim": 8}
    ),
    "qwen3-linear-bfloat16": Case(
        "qwen3",
        (53, 16, 24, 3, 6, 2),
        rope("linear", 10000.0, factor=2.5),
        True,
        {"head_dim": 8},
        dtype=torch.bfloat16,
        shard="4KB",
    ),
    "qwen3-yarn": Case(
        "qwen3",
        (53, 18, 20, 2, 6, 2),
        rope(
            "yarn",
            50.0,
            factor=4.0,
            original_max_position_embeddings=64,
            beta_fast=4.0,
            beta_slow=1.5,
            truncate=False,
            mscale=2.0,
            mscale_all_dim=0.5,
        ),
        False,
        {"head_dim": 16, "max_position_embeddings": 256, "rms_norm_eps": 1e-5},
        v4="rope_type",
    ),
}


def scale(name: str, parameter: torch.Tensor) -> float:
    """Deviation of a random weight: attention far from uniform, and no amplifier of rounding."""
    width = parameter.shape[-1] ** -0.5
    by_part = {"embed_tokens": 3.0 * width, "lm_head": 2.0 * width, "bias": 0.3}
    return next((value for part, value in by_part.items() if part in name), 0.8 * width)


def build(case: Case) -> torch.nn.Module:
    """The model with random weights, norms and biases away from 1 and 0."""
    kind, causal = FAMILIES[case.family]
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads")
    fields = dict(zip(names, case.shape, strict=True))
    fields |= {"max_position_embeddings": 64, "rms_norm_eps": 1e-5, "bos_token_id": 1}
    fields |= {"eos_token_id": case.eos if isinstance(case.eos, int) else list(case.eos)}
    fields |= {"tie_word_embeddings": case.tied, "rope_parameters": dict(case.rope)} | case.more
    model = causal(kind(**fields, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else scale(name, parameter) * noise
        # float32 arithmetic on numbers that the checkpoint's type holds exactly
        parameter.data = parameter.data.to(case.dtype).float()
    return model


def logits_of(model: torch.nn.Module, tokens: np.ndarray, mask: np.ndarray) -> torch.Tensor:
    """Logits [real tokens, V]; positions count real tokens from 0."""
    position = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    logits = model(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(mask.astype(np.int64)),
        position_ids=torch.tensor(position),
    ).logits
    return logits[torch.tensor(mask)]


def golden(model: torch.nn.Module, vocab: int) -> dict[str, np.ndarray]:
    """What golden.npz holds."""
    tokens = np.random.default_rng(0).integers(0, vocab, (len(LENGTHS), COLUMNS))
    right = np.arange(COLUMNS)[None] < np.array(LENGTHS)[:, None]
    left = np.ascontiguousarray(right[:, ::-1])
    out = {"tokens": tokens.astype(np.int32), "right": right, "left": left}
    with torch.no_grad():
        out["left_logits"] = logits_of(model, tokens, left).numpy()
    logits = logits_of(model, tokens, right)
    out["right_logits"] = logits.detach().numpy()
    logprob = torch.log_softmax(logits, dim=-1)
    # Rows follow one another in `logits`: the last token of each predicts nothing.
    last = np.cumsum(LENGTHS) - 1
    source = np.setdiff1d(np.arange(sum(LENGTHS)), last)
    target = tokens[right][source + 1]
    (-logprob[source, target].mean()).backward()
    return out | {f"grad:{name}": p.grad.numpy() for name, p in model.named_parameters()}


def as_version_4(folder: Path, case: Case) -> None:
    """Rewrite config.json as transformers 4 wrote it: rope_theta beside rope_scaling."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {case.v4: kind, **parameters}
    if "original_max_position_embeddings" not in case.rope and config["rope_scaling"]:
        config["rope_scaling"].pop("original_max_position_embeddings", None)
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.3"
    config.pop("layer_types", None)
    if "head_dim" not in case.more:
        config.pop("head_dim", None)
    if case.family != "llama":
        config |= {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 1}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def check_rules(name: str, model: torch.nn.Module) -> None:
    """Each rule of the scaling has a frequency: kept, divided, and in between."""
    rotary, case = model.model.rotary_emb, CASES[name]
    kept, _ = rotary.compute_default_rope_parameters(model.config)
    ratio = (kept / rotary.inv_freq).numpy()
    factor = case.rope.get("factor", 1.0)
    if case.rope["rope_type"] in ("llama3", "yarn"):
        between = (ratio > 1.001) & (ratio < factor - 0.001)
        rules = (np.isclose(ratio, 1), between, np.isclose(ratio, factor))
        assert all(rule.any() for rule in rules), (name, ratio)
    else:
        assert np.allclose(ratio, factor), (name, ratio)


def write(name: str, folder: Path) -> None:
    """One checkpoint and its golden.npz; the folder read back gives the same logits."""
    case = CASES[name]
    shutil.rmtree(folder, ignore_errors=True)
    model = build(case)
    check_rules(name, model)
    out = golden(model, case.shape[0])
    model.to(case.dtype).save_pretrained(folder, max_shard_size=case.shard)
    shards = len(list(folder.glob("*.safetensors")))
    assert shards == 1 if case.shard == WHOLE else shards >= 3, (name, shards)
    if case.v4:
        as_version_4(folder, case)
    again = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    want = out["right_logits"]
    with torch.no_grad():
        got = logits_of(again, out["tokens"], out["right"]).numpy()
        half = logits_of(again.to(torch.bfloat16), out["tokens"], out["right"]).float().numpy()
    np.testing.assert_array_equal(got, want, err_msg=name)
    np.savez_compressed(folder / "golden.npz", **out)
    error = np.abs(half - want).max() / np.abs(want).max()
    print(f"{name}: torch's own bfloat16 is off by {error:.1e} of the largest logit")


def main() -> None:
    logging.set_verbosity_error()
    for name in CASES:
        write(name, Path(__file__).parent / "families" / name)


if __name__ == "__main__":
    main()
