"""What a run folder says of its model: where it started from, its adapters, its checkpoints."""

import json
from typing import Any

from rlif_jax.errors import UserError
from rlif_jax.model.config import Lora
from rlif_jax.storage.folder import Folder, bucket_errors, in_bucket, is_folder
from rlif_jax.weights import orbax_folder

DESCRIPTION = "model"
"""The folder inside a run folder that holds the model's config.json and tokenizer."""


def checkpoint_of(path: Folder) -> Folder | None:
    """The newest checkpoint of a run folder, or the one that is named; None where it is neither.

    Raises UserError for a run folder without a checkpoint.
    """
    path = path if in_bucket(path) else path.resolve()
    if path.parent.name == "checkpoints" and path.name.isdigit():
        return path
    if not is_folder(path / "checkpoints"):
        return None
    if not (steps := saved_steps(path / "checkpoints")):
        raise UserError(f"run folder {path} has no checkpoint yet; train until it saves one")
    return path / "checkpoints" / str(steps[-1])


def saved_steps(folder: Folder) -> list[int]:
    """The steps of the whole checkpoints in a checkpoints folder, in order.

    In a bucket an unfinished one has its final name as well, and Orbax finishes it with an object.
    """
    if not is_folder(folder):
        return []
    found = [path for path in folder.iterdir() if path.name.isdigit()]
    if in_bucket(folder):
        found = [path for path in found if (path / "commit_success.txt").exists()]
    return sorted(int(path.name) for path in found)


def recorded_source(folder: Folder, configured: str | None = None) -> str | None:
    """The model source that a run folder's config.json names, None if it names none.

    It is more definite than the one that was configured: a model of the Hub at its commit, a run's
    checkpoint at its step. Where `configured` is given and the run was configured with another
    one, as a run that has recorded nothing may have been, it is None.
    """
    if configured not in (None, _recorded(folder, "config", "model", "source")):
        return None
    return _recorded(folder, "model", "source")


def recorded_lora(step: Folder) -> Lora | None:
    """The adapters that a checkpoint has beside or in place of whole weights; None: it has none.

    Raises UserError where the run folder's config.json does not say what they are.
    """
    if not is_folder(step / orbax_folder.ADAPTERS):
        return None
    run = step.parent.parent
    try:
        return Lora(
            rank=int(_recorded(run, "config", "model", "lora_rank")),
            alpha=float(_recorded(run, "config", "model", "lora_alpha")),
            targets=tuple(_recorded(run, "config", "model", "lora_targets")),
        )
    except (TypeError, ValueError) as error:
        raise UserError(
            f"checkpoint {step} has adapters, and {run / 'config.json'} does not say with which "
            "model.lora_rank, lora_alpha and lora_targets they were trained; copy the file from "
            "the run folder"
        ) from error


def _recorded(folder: Folder, *keys: str) -> Any:
    """What a run folder's config.json has under these keys, None if it has nothing there."""
    try:
        with bucket_errors(folder):
            value = json.loads((folder / "config.json").read_text("utf-8"))
        for key in keys:
            value = value[key]
        return value
    except (OSError, ValueError, KeyError, TypeError):
        return None
