"""Which fields of a configuration a run reads, and from which section."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rlif_jax

PACKAGE = Path(rlif_jax.__file__).parent
CONFIG = PACKAGE / "config"
PASSED_ON = {str(CONFIG / "schema.py"), str(CONFIG / "shared.py"), __file__}
"""A property or a method of a section reads a field for whoever asks for it."""


def leaves(section: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a configuration, those of sections in place of sections."""
    for field in dataclasses.fields(section):
        value = object.__getattribute__(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def recording(section: Any, read: set[str], prefix: str = "") -> Any:
    """The same configuration, which adds to `read` the dotted name of each field that is used.

    A field is not used by what only validates it, nor by what copies, prints or compares whole
    sections.
    """
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    names = frozenset(values)

    def get(self: Any, name: str) -> Any:
        if name in names and _used(sys._getframe(1)):
            read.add(prefix + name)
        return object.__getattribute__(self, name)

    for name, value in values.items():
        if dataclasses.is_dataclass(value):
            values[name] = recording(value, read, f"{prefix}{name}.")
    kind = type(section)
    return type(kind.__name__, (kind,), {"__getattribute__": get})(**values)


def _used(frame: Any) -> bool:
    while frame.f_code.co_filename in PASSED_ON:
        frame = frame.f_back
    file = Path(frame.f_code.co_filename)
    return file.is_relative_to(PACKAGE) and not file.is_relative_to(CONFIG)
