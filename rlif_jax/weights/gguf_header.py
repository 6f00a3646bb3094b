"""The header of a GGUF file: its tensors' places and its metadata."""

import struct
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from rlif_jax.errors import UserError


def open_gguf(path: str | Path) -> GGUFReader:
    """The parsed header of a GGUF file, its tensors memory-mapped; raises UserError for others."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"model file {path} does not exist; give the path of a .gguf file")
    try:
        return GGUFReader(path)
    except OSError as error:
        raise UserError(f"model file {path} cannot be read: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        # GGUFReader defines no exception; a cut or damaged file raises one of these.
        raise UserError(
            f"model file {path} is not a complete GGUF file ({type(error).__name__}: {error}); "
            "it is damaged or was cut short: fetch it again"
        ) from error


def metadata(reader: GGUFReader, key: str, default: Any = None) -> Any:
    """The value of a metadata key, or `default` when the file does not have it."""
    field = reader.get_field(key)
    try:
        return default if field is None else field.contents()
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise UserError(
            f"model file {reader.data.filename} has unreadable metadata {key} ({error}); it is "
            "damaged: fetch it again"
        ) from error
