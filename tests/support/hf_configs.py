"""The config.json of the smallest models that are read, and where saved ones are."""

import json
from enum import Enum
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from rlif_jax.model.config import ModelConfig
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config
from support import GOLDENS

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


class Absent(Enum):
    """In place of a value: the field is left out."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


def minimal(family: str = "llama", **changed) -> dict[str, Any]:
    """The fields that must be there, some of them changed or ABSENT."""
    values = {"architectures": [NAMES[family]], **LEAST, **changed}
    return {key: value for key, value in values.items() if value is not ABSENT}


def read(folder: Path, values: dict[str, Any]) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(values))
    return read_hf_config(LocalFiles(folder))
