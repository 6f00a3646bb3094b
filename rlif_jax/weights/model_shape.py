"""The shape of a model, without its weights and its tokenizer: all that planning needs."""

from pathlib import Path

from rlif_jax.model.config import ModelConfig
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config
from rlif_jax.weights.hub_model import fetch_config
from rlif_jax.weights.run_folder import checkpoint_of
from rlif_jax.weights.source import open_model


def model_shape(source: str) -> ModelConfig:
    """The decoder of a source: of hf:ORG/NAME or a folder, as config.json alone describes it.

    Raises:
        UserError: the source is unknown, unreachable, damaged or not supported.
    """
    if source.startswith("hf:"):
        return read_hf_config(LocalFiles(fetch_config(source).path))
    path = Path(source).expanduser()
    if (path / "config.json").is_file() and checkpoint_of(path) is None:
        return read_hf_config(LocalFiles(path))
    return open_model(source).cfg
