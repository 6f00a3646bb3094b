"""The JSON files of a model folder; every error names the file, the field and its value."""

import json
from collections.abc import Mapping
from typing import Any

from rlif_jax.errors import UserError, shown
from rlif_jax.model.config import usable
from rlif_jax.storage.files import Files


class Fields:
    """config.json with typed access: every error names the file, the field and its value.

    `number` and `flag` raise UserError for a value of another type.
    """

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where = values, where

    def refuse(self, why: str, remedy: str = "correct it, or fetch the file again") -> UserError:
        """The exception to raise."""
        return UserError(f"{self.where}: {why}; {remedy}")

    def number(self, name: str, default: float | None = None, *, kind: type = int) -> Any:
        """A positive int or float, see `usable`; `default` stands in for an absent or null one."""
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise self.refuse(f"{name} is missing")
        if not usable(value, kind):
            raise self.refuse(f"{name} is {shown(value)}, not a usable number")
        return kind(value)

    def flag(self, name: str) -> bool:
        """A boolean, false when absent or null."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(f"{name} is {shown(value)}, neither true nor false")
        return bool(value)


def read_json(files: Files, name: str) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        UserError: the file is missing, is not JSON or holds something else.
    """
    if name not in files.names():
        raise UserError(
            f"model folder {files.location} has no {name}; give the folder that holds the model's "
            "config.json and weights"
        )
    try:
        value = json.loads(files.read(name).decode())  # UTF-8 alone, as transformers reads it
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{name} in {files.location} is not JSON ({error}); fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{name} in {files.location} is not a JSON object; fetch it again")
    return value
