"""Models on the Hugging Face Hub: which files of a repository a model needs."""

import json
from collections.abc import Collection
from pathlib import Path

from rlif_jax.errors import UserError
from rlif_jax.storage.hub import HubFolder, Wanted, fetch

NEEDED = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template*.jinja",
    "chat_template*.json",
    "additional_chat_templates/*.jinja",
)
LICENCES = ("LICENSE*", "NOTICE*")  # whoever passes a model on must have them
# A star also matches slashes, so copies in subfolders (original/, onnx/) are named here; so is the
# second copy of the weights, in the maker's own layout, beside Mistral's.
UNNEEDED = ("*/*.safetensors", "*/*.json", "*/*.txt", "*/*.model", "consolidated*")
_OTHER_WEIGHTS = (".bin", ".pth", ".pt", ".gguf", ".safetensors")


def fetch_model(source: str) -> HubFolder:
    """The folder of `hf:ORG/NAME[@REVISION]`: configuration, safetensors, tokenizer and licence.

    Raises UserError; see `storage.hub.fetch`.
    """

    def check(names: Collection[str], chosen: Collection[str]) -> None:
        if not any(name.endswith(".safetensors") for name in chosen):
            others = sorted(name for name in names if name.endswith(_OTHER_WEIGHTS))
            raise UserError(
                f"{source} holds no safetensors weights"
                + (f", only {', '.join(others[:3])}" if others else "")
                + "; choose a repository or revision with *.safetensors files, or give the path of "
                "a local folder or .gguf file (--model.source /path/to/folder)"
            )
        if "config.json" not in chosen:
            raise UserError(
                f"{source} holds no config.json; choose the repository of a whole model, or give "
                "the path of a local folder (--model.source /path/to/folder)"
            )

    return fetch(
        Wanted(
            source,
            "model",
            NEEDED,
            check,
            _is_whole,
            "give the path of a local folder instead (--model.source /path/to/folder)",
            also=LICENCES,
            ignored=UNNEEDED,
        )
    )


def fetch_config(source: str) -> HubFolder:
    """A folder with config.json of `hf:ORG/NAME[@REVISION]`, which tells the model's shape.

    Raises UserError; see `storage.hub.fetch`.
    """

    def check(names: Collection[str], chosen: Collection[str]) -> None:
        if "config.json" not in chosen:
            raise UserError(
                f"{source} holds no config.json; choose the repository of a whole model, or give "
                "the path of a local folder with its config.json (--model.source /path/to/folder)"
            )

    return fetch(
        Wanted(
            source,
            "model",
            ("config.json", "generation_config.json"),
            check,
            lambda folder: (folder / "config.json").is_file(),
            "give the path of a local folder with its config.json (--model.source /path/to/folder)",
        )
    )


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds config.json and all weights; its licence may be missing."""
    shards, indexed = {shard.name for shard in folder.glob("*.safetensors")}, set()
    for index in folder.glob("*.safetensors.index.json"):
        try:
            indexed |= set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    # Only an index tells whether files of a numbered series, such as model-1-of-2, are all there.
    told = all("-of-" not in name or name in indexed for name in shards)
    needed = shards | indexed | {"config.json"}
    return bool(shards) and told and all((folder / name).is_file() for name in needed)
