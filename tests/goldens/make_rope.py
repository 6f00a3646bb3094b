"""Writes rope.json: rotary frequencies of transformers for heads of published models.

    python tests/goldens/make_rope.py

needs torch and transformers 5. Each entry has a name, the fields of a config.json that matter, and
what transformers makes of them: `frequencies` [A/2], radians per position as float32 numbers, and
`factor`, which multiplies cosine and sine.
"""

import json
from pathlib import Path

from transformers import AutoConfig, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = Path(__file__).parent
FIELDS = {"hidden_size", "num_attention_heads", "head_dim", "max_position_embeddings"}
FIELDS |= {"rope_theta", "rope_scaling"}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def published(name: str, **changed) -> dict:
    """The fields of a published config.json."""
    config = json.loads((HERE / "configs" / name / "config.json").read_text())
    return {key: value for key, value in config.items() if key in FIELDS} | changed


CODER = "Qwen2.5-Coder-7B-Instruct"
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 4096}
CASES = {
    "DeepSeek-R1-Distill-Qwen-1.5B": published("DeepSeek-R1-Distill-Qwen-1.5B"),
    "Qwen3-4B": published("Qwen3-4B"),
    "Llama-3.2-1B-Instruct": published("Llama-3.2-1B-Instruct"),
    # as the model card says how to reach 131,072 tokens
    "Qwen2.5-Coder with YaRN": published(CODER, rope_scaling=YARN),
    # the corners of YaRN's rule: a range outside the channels, one of no width, factor 1
    "YaRN, range cut at 0": {
        **SMALL,
        "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 128},
    },
    "YaRN, range of no width": {
        **SMALL,
        "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 6},
    },
    "YaRN, range beyond the head": {
        **SMALL,
        "rope_theta": 5.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 8, "beta_slow": 1},
    },
    "YaRN, factor 1": {
        **SMALL,
        "rope_theta": 500.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 1.0, "mscale": 1.5},
    },
    "original length outside": {
        **SMALL,
        "rope_theta": 500.0,
        "original_max_position_embeddings": 256,
        "rope_scaling": {"rope_type": "yarn", "factor": 16.0},
    },
    "rope_type before type": {
        **SMALL,
        "rope_theta": 500.0,
        "rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 16.0},
    },
    "a factor without a type": {**SMALL, "rope_theta": 500.0, "rope_scaling": {"factor": 16.0}},
}


def main() -> None:
    out = []
    for name, fields in CASES.items():
        # LlamaConfig takes the old fields; the rotary module is the same in all three families.
        rotary = LlamaRotaryEmbedding(LlamaConfig(**json.loads(json.dumps(fields))))
        frequencies = [float(f) for f in rotary.inv_freq]
        entry = {"name": name, "config": fields}
        out.append(entry | {"factor": rotary.attention_scaling, "frequencies": frequencies})
    for name in ("DeepSeek-R1-Distill-Qwen-1.5B", CODER, "Qwen3-4B", "Llama-3.2-1B-Instruct"):
        AutoConfig.from_pretrained(HERE / "configs" / name)  # transformers accepts them all
    (HERE / "rope.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
