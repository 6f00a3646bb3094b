"""Whether an answer is the expected one, and whether two answers are the same: pure functions.

The rules are LiveCodeBench's (commit 28fef95, `lcb_runner/evaluation/testing_util.py`); there is no
special judge: a problem with several right answers accepts only the listed ones. Answers may be
hostile: nothing here writes out an exponent, takes more than linear time in the length of a number,
or follows nesting by recursion, except that plain data nested too deeply has no key.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any

from rlif_jax.execution.sandbox.plain_data import UNREADABLE

_INT_DIGITS = 4000  # CPython refuses to convert integers of more than 4300 digits
_TOLERANCE_DIGITS = 50
_INTEGER = re.compile(r"[+-]?[\d_]+")


def stdout_equal(actual: str, expected: str, tolerance: float = 0.0) -> bool:
    """Tell whether two standard outputs agree.

    Both are stripped and split at newlines, and every line is stripped. The numbers of lines must
    agree. Two lines agree when they are the same text, or when every blank-separated token of both
    is a decimal number and the two lists are equal exactly (3 = 3.0 = 3e0, but 0.1 is not 0.10001).

    With a `tolerance` above 0, which is not among the official rules, two lines also agree when
    they have equally many tokens and each pair agrees: as the same text, as equal numbers, or as
    finite numbers of which one differs from the expected one by at most
    tolerance * max(1, |expected|), computed with 50 digits. Two integers must be equal: the
    tolerance is for all problems of a set, and in most of them a count that is off by one is wrong.
    A token is a number as a whole or not at all, as in the checkers of DMOJ and Kattis: neither
    token of "[0.5, 1]" is a number. NaN agrees with the same text only.
    """
    actual_lines, expected_lines = _lines(actual), _lines(expected)
    if len(actual_lines) != len(expected_lines):
        return False
    allowed = _Tolerance(tolerance) if tolerance > 0 else None
    return all(
        a == e or _lines_agree(a.split(), e.split(), allowed)
        for a, e in zip(actual_lines, expected_lines, strict=True)
    )


def functional_equal(actual: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Tell whether two values rebuilt from JSON by `load_json` agree under Python's `==`.

    So True = 1 = 1.0, text is compared exactly, and NaN equals nothing, itself included. Both
    values consist of builtin types only, so no `__eq__` of a candidate program takes part. With a
    `tolerance` above 0 finite numbers anywhere inside, not both integers, also agree when
    they differ by at most tolerance * max(1, |expected|), computed with 50 digits on numbers as
    written; booleans and numbers inside texts do not.
    """
    allowed = _Tolerance(tolerance) if tolerance > 0 else None
    pending = [(actual, expected)]
    while pending:
        a, e = pending.pop()
        if isinstance(a, list) and isinstance(e, list):
            if len(a) != len(e):
                return False
            pending.extend(zip(a, e, strict=True))
        elif isinstance(a, dict) and isinstance(e, dict):
            if a.keys() != e.keys():
                return False
            pending.extend((value, e[key]) for key, value in a.items())
        elif not (a == e or (allowed is not None and _values_close(a, e, allowed))):
            return False
    return True


def answer_key(kind: str, text: str) -> str:
    """A digest of an answer, 32 hexadecimal digits, equal for equal answers and only for them.

    `kind` "stdin": `text` is a standard output, and keys are equal when `stdout_equal` holds.
    "functional": it is the JSON text of a returned value, and keys are equal when
    `functional_equal` holds, except that NaN agrees with NaN: the same output. Tolerances play no
    part, since nearness is not transitive.

    Raises:
        ValueError: `load_json` cannot read `text`, or the kind is unknown.
    """
    if kind == "stdin":
        pieces = map(_canonical_line, _lines(text))
    elif kind == "functional":
        pieces = _canonical_value(load_json(text))
    else:
        raise ValueError(f"kind {kind!r} is neither 'stdin' nor 'functional'")
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


class AnswersKey:
    """The key of what a program answered in a sequence of calls: equal for equal answers.

    Answers are plain data (`sandbox.plain_data`), equal when Python holds them equal, except that
    NaN agrees with NaN. An exception is known by its class. What a call has left in its arguments
    counts where the function returned None.
    """

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._readable = True

    def add(self, kind: str, text: str) -> None:
        """Add an answer: "result" or "raised", and the JSON text that came with it."""
        try:
            first, *more = load_json(text)
            pieces = [kind, _canonical_plain(first)]
            if kind == "result" and first is None:
                pieces += map(_canonical_plain, more)
        except UNREADABLE:
            self._readable = False
            return
        for piece in pieces:
            self._digest.update(f"{piece};".encode("utf-8", "surrogatepass"))

    def digest(self) -> str | None:
        """32 hexadecimal digits; None when an answer was not plain data."""
        return self._digest.hexdigest() if self._readable else None


def load_json(text: str) -> Any:
    """Parse one JSON value, with integers of any length and with NaN and Infinity.

    Integers of more than 4000 digits are Decimals, which compare exactly and are read in linear
    time. Raises ValueError on anything else, values nested too deeply for the parser included.
    """
    try:
        return json.loads(text, parse_int=_parse_int)
    except RecursionError:
        raise ValueError("JSON value nested too deeply") from None


class _Tolerance:
    """How far a number may be from the expected one."""

    def __init__(self, tolerance: float):
        self._bound = Decimal(repr(float(tolerance)))
        # Results are rounded, so that 1e999999999 - 1 is not written out; no result overflows
        # where an operand does not, and none raises.
        self._context = Context(prec=_TOLERANCE_DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])

    def covers(self, actual: Decimal, expected: Decimal) -> bool:
        """Tell whether both are finite and within the tolerance."""
        if not (actual.is_finite() and expected.is_finite()):
            return False
        scale = max(expected.copy_abs(), Decimal(1))
        difference = self._context.subtract(actual, expected).copy_abs()
        return difference <= self._context.multiply(self._bound, scale)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _lines_agree(actual: list[str], expected: list[str], allowed: _Tolerance | None) -> bool:
    """Tell whether two lists of tokens are equal as decimals, or agree token by token."""
    if len(actual) != len(expected):
        return False
    pairs = zip(actual, expected, strict=True)
    if allowed is not None:
        return all(a == e or _tokens_close(a, e, allowed) for a, e in pairs)
    try:
        return all(Decimal(a) == Decimal(e) for a, e in pairs)
    except InvalidOperation:  # a token is not a number, or a signalling NaN was compared
        return False


def _tokens_close(actual: str, expected: str, allowed: _Tolerance) -> bool:
    """Tell whether both are numbers, and equal or, unless both are integers, close."""
    try:
        a, e = Decimal(actual), Decimal(expected)
        if a == e:
            return True
    except InvalidOperation:
        return False
    integers = _INTEGER.fullmatch(actual) and _INTEGER.fullmatch(expected)
    return not integers and allowed.covers(a, e)


def _values_close(actual: Any, expected: Any, allowed: _Tolerance) -> bool:
    """Tell whether both are numbers, one of them a float, and close."""
    kinds = {type(actual), type(expected)}
    if float not in kinds or not kinds <= {int, float, Decimal}:  # a Decimal is a long integer
        return False
    return allowed.covers(_as_written(actual), _as_written(expected))


def _as_written(number: float | Decimal) -> Decimal:
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def _parse_int(digits: str) -> int | Decimal:
    return int(digits) if len(digits.lstrip("-")) <= _INT_DIGITS else Decimal(digits)


def _canonical_line(line: str) -> str:
    """A text that two stripped lines share when, and only when, they agree."""
    try:
        numbers = [_canonical_decimal(token) for token in line.split()]
    except (InvalidOperation, ValueError):
        return f"text {line}\n"
    return f"numbers {' '.join(numbers)}\n"


def _canonical_decimal(token: str) -> str:
    """The value of a token in one form, exactly; ValueError for a NaN, which equals no number."""
    number = Decimal(token)
    if number.is_nan():
        raise ValueError("NaN")
    sign = "-" if number.is_signed() else ""
    if number.is_infinite():
        return f"{sign}inf"
    if number.is_zero():
        return "0"
    _, digits, exponent = number.as_tuple()
    written = "".join(map(str, digits))
    significant = written.rstrip("0")
    return f"{sign}{significant}e{exponent + len(written) - len(significant)}"


def _canonical_value(value: Any) -> Iterator[str]:
    """Pieces of a text that two values share when, and only when, they agree.

    Every piece tells its own length or ends with a mark that it does not contain, and containers
    start with their size, so that no two values share a text by accident of concatenation.
    """
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            yield f"list {len(value)};"
            pending.extend(reversed(value))
        elif isinstance(value, dict):
            yield f"dict {len(value)};"
            for key in sorted(value):
                pending.extend((value[key], key))
        elif isinstance(value, str):
            yield f"text {len(value)};{value}"
        elif value is None:
            yield "null;"
        else:
            yield f"number {_canonical_number(value)};"


def _canonical_number(number: float | Decimal) -> str:
    """The value of a JSON number or boolean in one form: digits if it is whole, else binary."""
    if isinstance(number, float):
        if not math.isfinite(number) or not number.is_integer():
            return "nan" if math.isnan(number) else number.hex()
        number = int(number)
    # A Decimal is an integer of more digits than any int here has, and is written as digits, too.
    return str(number) if isinstance(number, Decimal) else str(int(number))


def _canonical_plain(tree: Any) -> str:
    """A text that two trees of plain data share when, and only when, their values are equal.

    Raises one of UNREADABLE for a tree that has none.
    """
    if tree is None or isinstance(tree, str):
        return "".join(_canonical_value(tree))
    if isinstance(tree, list):
        return f"list {len(tree)};{''.join(map(_canonical_plain, tree))}"
    if not isinstance(tree, dict):
        return f"number {_canonical_whole(tree)};"
    ((kind, content),) = tree.items()
    if kind == "int":
        return f"number {hex(int(content, 16))};"
    if kind == "complex":
        real, imaginary = content
        if imaginary == 0:
            return _canonical_plain(real)
    if kind == "bytes":
        return f"bytes {content};"
    parts = [_canonical_plain(item) for item in content]
    if kind in ("dict", "set", "frozenset"):
        kind = kind.removeprefix("frozen")
        parts.sort()
    return f"{kind} {len(parts)};{''.join(parts)}"


def _canonical_whole(number: float | Decimal) -> str:
    """The value of a number, hexadecimal digits if it is whole; one too long for `int` as it is."""
    if isinstance(number, Decimal):
        return str(number)
    if isinstance(number, float) and not number.is_integer():
        return "nan" if math.isnan(number) else number.hex()
    return hex(int(number))
