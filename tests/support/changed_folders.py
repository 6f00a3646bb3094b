"""Golden model folders with other tensors or words, and what they compute."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from rlif_jax.weights.source import load_model

TOKENS = np.arange(3, 35).reshape(2, 16)


def logits(source: Path | str) -> np.ndarray:
    model, _ = load_model(str(source))
    return np.asarray(model.logits(TOKENS))


def change_tensors(folder: Path, **changed: np.ndarray | None) -> None:
    """Replace, add or (None) take away tensors."""
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **changed}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)


def write_words(folder: Path, words: dict[str, int]) -> None:
    """A tokenizer of these words and ids; the first three are special."""
    tokenizer = Tokenizer(models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def words(ids: range) -> dict[str, int]:
    return {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in ids}
