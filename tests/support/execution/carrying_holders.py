"""What a holder of a bit is, and the objects of the library's modules that can be one.

A holder is the module that a way leads to as `h`, an expression (or lines that set n) by which a
program sees the bit, and lines that leave it. A fresh process must not see it.
"""

import functools
import importlib
import types
from collections.abc import Iterator
from dataclasses import dataclass

from .carrying_ways import ENCODINGS


@dataclass(frozen=True)
class Holder:
    """A place for one bit; `outlives` says that it is still there when its process has ended."""

    module: str
    look: str
    leave: str
    outlives: bool = False


def table(rows: dict[str, tuple[str, str, str]], outlives: bool = False) -> dict[str, Holder]:
    """Holders by name, of rows of a module, what looks and what leaves."""
    return {name: Holder(*row, outlives) for name, row in rows.items()}


def caught(error: str, lines: str, absent: int = 0) -> str:
    """Lines that set n to 1, or to 0 when they raise (the other way round with `absent`)."""
    return f"n = {1 - absent}\ntry: {lines}\nexcept {error}: n = {absent}"


MODULES = (
    *("abc", "array", "ast", "base64", "bisect", "builtins", "calendar", "cmath", "codecs"),
    *("collections", "contextlib", "copy", "copyreg", "csv", "dataclasses", "datetime", "decimal"),
    *("difflib", "dis", "enum", "fnmatch", "fractions", "functools", "gc", "genericpath", "heapq"),
    *("inspect", "io", "itertools", "json", "keyword", "linecache", "locale", "math", "numbers"),
    *("opcode", "operator", "os", "pickle", "posixpath", "pprint", "queue", "random", "re"),
    *("reprlib", "secrets", "shlex", "signal", "stat", "statistics", "string", "struct", "sys"),
    *("textwrap", "threading", "time", "token", "tokenize", "traceback", "types", "typing"),
    *("warnings", "weakref", "zlib"),
)


@functools.cache
def attributes(module: str) -> dict[str, list[tuple[str, ...]]]:
    """Chains of names that lead from a module to objects that can hold something, by their kind."""
    found: dict[str, list[tuple[str, ...]]] = {"module": [()]}
    loaded = importlib.import_module(module)
    for name, thing in _owned(loaded):
        found.setdefault(_kind(thing), []).append((name,))
        if _kind(thing) == "class":
            for inner, method in _owned(thing):
                if _kind(method) == "function":
                    found.setdefault("function", []).append((name, inner))
    return {kind: sorted(chains) for kind, chains in found.items() if kind in ENCODINGS}


def _owned(owner: object) -> Iterator[tuple[str, object]]:
    return ((name, thing) for name, thing in list(vars(owner).items()) if name.isidentifier())


def _kind(thing: object) -> str:
    if isinstance(thing, type):  # a type that can be changed
        return "" if thing.__flags__ & 1 << 8 else "class"
    kinds = {types.FunctionType: "function", types.ModuleType: "module"}
    return (kinds | {dict: "dict", list: "list", set: "set"}).get(type(thing), "")
