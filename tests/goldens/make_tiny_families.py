"""Writes tiny_families.npz: small random checkpoints of three families and transformers' logits.

    python tests/goldens/make_tiny_families.py

needs torch and transformers. Keys are FAMILY/NAME: the checkpoint's own tensors as `w:...`, and for
two paddings the logits at real tokens.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHAPE = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "rms_norm_eps": 1e-5,
    "attn_implementation": "eager",
}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=False)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True)),
}


def randomise(model: torch.nn.Module) -> None:
    """Weights so large that attention is far from uniform; norms and biases away from 1 and 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.2 * noise if "norm" in name else 0.3 * noise


def main() -> None:
    tokens = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (3, 9))
    length = np.array([9, 5, 1])
    right = np.arange(9)[None] < length[:, None]
    out = {"tokens": tokens.astype(np.int32), "right": right, "left": right[:, ::-1]}
    for family, (kind, config) in FAMILIES.items():
        model = kind(config).eval()
        randomise(model)
        out |= {f"{family}/w:{n}": p.detach().numpy() for n, p in model.named_parameters()}
        for side in ("right", "left"):
            mask = np.ascontiguousarray(out[side])
            position = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
            with torch.no_grad():
                logits = model(
                    input_ids=torch.tensor(tokens),
                    attention_mask=torch.tensor(mask.astype(np.int64)),
                    position_ids=torch.tensor(position),
                ).logits.numpy()
            out[f"{family}/{side}"] = logits[mask]
    np.savez_compressed(Path(__file__).parent / "tiny_families.npz", **out)


if __name__ == "__main__":
    main()
