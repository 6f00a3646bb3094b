"""What is wrong with the rows of a file, or to be known of them: equal faults are one line."""

import ast
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from rlif_jax.errors import UserError

EXAMPLES = 3
"""Rows that the line of many equal faults names beside the first."""

_NAMED = re.compile(r""" \((id|question_id|task_id) ('[^']*'|"[^"]*")\): """)
"""How messages name the problem of a row; an id may have either quotation mark in it."""
_VALUE = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\b0x[0-9a-f]+|\d+(?:\.\d+)?|\b(?:True|False|None)\b"""
)
_VALUES = re.compile(r"[\[\](){},:.\s-]*(?:\0[\[\](){},:.\s-]*)+")

Item = TypeVar("Item")


@dataclass(frozen=True)
class RowFault:
    """A message about the row at `where`, as "FILE line 3"; `id` is its problem's, "" if unknown.

    It names the field, its value and the remedy, and neither place nor id. `id_field` is what the
    row calls the id.
    """

    where: str
    id: str
    message: str
    id_field: str = "id"

    @classmethod
    def of(cls, error: UserError, where: str, row: Any = None) -> Self:
        """The fault that an error tells of, whose message begins with the row's place.

        The id is the one that the message names, or else one that the row seems to have.
        """
        message = str(error).removeprefix(where)
        if match := _NAMED.match(message):
            return cls(where, ast.literal_eval(match[2]), message[match.end() :], match[1])
        fields = ("id", "question_id", "task_id", "problem_id", "name")
        values = (row.get(name) for name in fields) if isinstance(row, dict) else ()
        guessed = next((str(value) for value in values if isinstance(value, str | int)), "")
        return cls(where, guessed, message.lstrip(": "))


def lines_of(faults: Iterable[RowFault]) -> list[str]:
    """A line for each kind of fault, in the order of the first of each kind."""
    lines = []
    for first, *rest in grouped(faults, lambda fault: form(fault.message)):
        name = f" ({first.id_field} {first.id!r})" if first.id else ""
        more = others([(fault.where, fault.id) for fault in rest])
        lines.append(f"{first.where}{name}{more}: {first.message}")
    return lines


def refusal(faults: Sequence[RowFault], file: object) -> UserError:
    """The error for a file in which these rows cannot be used; it tells the first kind of fault."""
    first, *more = lines_of(faults)
    if not more:
        return UserError(first)
    return UserError(
        f"{first} {len(faults)} rows have {len(more) + 1} kinds of faults; `python -m "
        f"rlif_jax.check {file}` lists them all."
    )


def grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """The items in lists of those with the same key, in the order of the first of each."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def form(message: str) -> str:
    """What messages have in common that differ only in the values that they quote."""
    return _VALUES.sub("\0", _VALUE.sub("\0", message))


def others(rest: Sequence[tuple[str, str]]) -> str:
    """How many more rows have a fault, with place and id of some of them; "" for none."""
    if not rest:
        return ""
    named = [
        f"line {where.rpartition('line ')[2]}{f', id {name!r}' if name else ''}"
        for where, name in rest[:EXAMPLES]
    ]
    if len(rest) > EXAMPLES:
        named.append("...")
    return f" and {len(rest)} more row{'s' * (len(rest) > 1)} ({'; '.join(named)})"
