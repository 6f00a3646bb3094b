"""The golden checkpoints of each family as whole model folders, with a tokenizer."""

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from support import GOLDENS

FAMILIES = GOLDENS / "families"
CASES = sorted(path.name for path in FAMILIES.iterdir())

TEMPLATE = "{% for m in messages %}<s> {{ m['content'] }} {% endfor %}"


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of words, with one id fewer than the model has rows, as Qwen has fewer."""
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(3, rows - 1))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(words[:3])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    config |= {"eos_token": "</s>", "unk_token": "<unk>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def family_folder(case: str, folder: Path) -> Path:
    """A copy of a golden checkpoint that `load_model` reads."""
    shutil.copytree(FAMILIES / case, folder, ignore=shutil.ignore_patterns("golden.npz"))
    write_tokenizer(folder)
    return folder
