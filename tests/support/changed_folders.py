"""Golden model folders with other tensors, words or settings, what they compute, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from rlif_jax.errors import UserError
from rlif_jax.weights.source import load_model

HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"
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


def refused(source: Path | str, *named: str) -> str:
    """The message of the refusal, which names the source and all of `named`, in one paragraph."""
    with pytest.raises(UserError) as error:
        load_model(str(source))
    message = str(error.value)
    for text in (*named, str(source)):
        assert text in message
    assert "\n" not in message and len(message) < 1500
    return message


def change_json(path: Path, **changed) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
