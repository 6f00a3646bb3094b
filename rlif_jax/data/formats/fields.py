"""Fields of a row of any schema; errors name the field, its value and the remedy."""

import json
import keyword
from collections.abc import Iterable, Mapping
from typing import Any

from rlif_jax.errors import UserError, shown
from rlif_jax.judgeable import long_integers

DESCRIPTIVE_FIELDS = ("question_title", "platform", "contest_id", "contest_date", "difficulty")
"""Fields that describe a problem, by which scores are broken down and problems are filtered."""
LONGEST_TIME_LIMIT_S = 86_400.0


def text_field(row: Mapping[str, Any], name: str, where: str, required: bool = False) -> str:
    """The text in a field, "" where it is absent or null.

    Raises UserError for any other value, for half of a surrogate pair, and for a blank `required`
    text.
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


def text_in(value: Any, name: str, where: str) -> str:
    """The value, which must be text; UserError for any other, and for half of a surrogate pair."""
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name} is {shown(value)}, not text; write it as text.")
    check_unicode(value, name, where)
    return value


def function_name(value: Any, what: str, where: str) -> str | None:
    """The name of the function that tests call, None for stdin; UserError for an invalid name."""
    return None if value is None else valid_name(value, what, where)


def valid_name(value: Any, what: str, where: str) -> str:
    """The name of a function; UserError for an invalid one."""
    if isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value):
        return value
    raise UserError(
        f"{where}: {what} {shown(value)}, which is not the name of a function; give the name "
        "that the tests call, or leave it out for stdin problems."
    )


def positive_seconds(value: Any, what: str, where: str) -> float:
    """A time limit; UserError when it is not a positive number, or is more than a day."""
    if type(value) not in (int, float) or not 0 < value <= LONGEST_TIME_LIMIT_S:
        raise UserError(
            f"{where}: {what} {shown(value)}, not a positive number of seconds up to a day; "
            "correct it or leave it out."
        )
    return float(value)


def check_unicode(text: str, name: str, where: str) -> None:
    """Raise UserError for half of a surrogate pair: legal in JSON, but neither stored nor piped."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: field {name} holds {text[error.start]!a}, half of a surrogate pair, which "
            "is not a character; replace it."
        ) from error


def json_field(text: str, name: str, kind: type, where: str) -> Any:
    """The value of type `kind`, list or dict, that a field holds as JSON; UserError otherwise."""
    value = json_value(text, name, where)
    if not isinstance(value, kind):
        wanted = "a list of tests" if kind is list else "an object"
        raise UserError(f"{where}: field {name} must be {wanted} in JSON, not {shown(value)}.")
    return value


def json_value(text: str, name: str, where: str) -> Any:
    """The value that a field holds as JSON; UserError when it is not JSON."""
    try:
        with long_integers():
            return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where}: field {name} is not JSON ({error}); it starts with {text[:40]!r}."
        ) from error
