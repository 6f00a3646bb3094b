"""Fields of a row of any schema, read so that a bad one is named with its value and the remedy."""

from collections.abc import Iterable, Mapping
from typing import Any

from rlif_jax.data.formats.rows import check_unicode, json_field
from rlif_jax.errors import UserError, shown


def text_field(row: Mapping[str, Any], name: str, where: str, required: bool = False) -> str:
    """The text in a field, "" where it is absent or null.

    Raises UserError when it is no text, holds half of a surrogate pair, or is blank and `required`.
    """
    value = row.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        found = "is missing" if value is None else f"is {shown(value)}, not text"
        raise UserError(f"{where}: field {name} {found}; write it as text.")
    if required and not value.strip():
        raise UserError(f"{where}: field {name} is empty; write it as text.")
    check_unicode(value, name, where)
    return value


def texts_field(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """The list of texts in a field, or in its JSON; empty where it is absent or null.

    Raises UserError when it is anything else.
    """
    values = list_or_json(row.get(name) or [], name, where)
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise UserError(
                f"{where}: field {name}, element {number} is {shown(value)}; it must be text."
            )
        check_unicode(value, f"{name}, element {number}", where)
    return values


def list_or_json(value: Any, name: str, where: str) -> list:
    """A list, or the list in a JSON text; UserError when it is neither."""
    if isinstance(value, str):
        return json_field(value, name, list, where)
    if not isinstance(value, list):
        raise UserError(f"{where}: field {name} is {shown(value)}; it must be a list, or its JSON.")
    return value


def id_field(row: Mapping[str, Any], names: Iterable[str], where: str) -> str | int | None:
    """The id in the first of these fields that is not null: a text or a whole number.

    Raises UserError when it is neither, or blank; None when no field holds one.
    """
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise UserError(
                f"{where}: field {name} is {shown(value)}; give each problem an id of its own, as "
                "text."
            )
        check_unicode(str(value), name, where)
        return value
    return None
