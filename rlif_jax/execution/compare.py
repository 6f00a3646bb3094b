"""Whether an answer is the expected one: LiveCodeBench's official rules, as pure functions.

Source: LiveCodeBench commit 28fef95, `lcb_runner/evaluation/testing_util.py`. No tolerance is
added to numbers and no special judge exists: a problem with several right answers has one.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

_CHUNK = 4000  # digits; CPython refuses to convert more than 4300 at once


def stdout_equal(actual: str, expected: str) -> bool:
    """Tell whether two standard outputs agree.

    Both are stripped and split at newlines, and every line is stripped. The numbers of lines must
    agree. Two lines agree when they are the same text, or when every blank-separated token of both
    is a decimal number and the two lists are equal exactly (3 = 3.0 = 3e0, but 0.1 is not 0.10001).
    """
    actual_lines = [line.strip() for line in actual.strip().split("\n")]
    expected_lines = [line.strip() for line in expected.strip().split("\n")]
    if len(actual_lines) != len(expected_lines):
        return False
    return all(map(_line_equal, actual_lines, expected_lines))


def _line_equal(actual: str, expected: str) -> bool:
    if actual == expected:
        return True
    try:
        return [Decimal(t) for t in actual.split()] == [Decimal(t) for t in expected.split()]
    except InvalidOperation:  # a token is no number, or a signalling NaN was compared
        return False


def functional_equal(actual: Any, expected: Any) -> bool:
    """Tell whether two values rebuilt from JSON by `load_json` agree under Python's `==`.

    So True = 1 = 1.0, text is compared exactly, and NaN equals nothing, itself included. Both
    values consist of builtin types only, so no `__eq__` of a candidate program takes part.
    """
    try:
        return bool(actual == expected)
    except RecursionError:
        return False


def load_json(text: str) -> Any:
    """Parse one JSON value, with integers of any length and with NaN and Infinity.

    Raises ValueError on anything else, values nested too deeply for the parser included.
    """
    try:
        # float gives every NaN an identity of its own; json shares one, and [x] == [x] for any x
        return json.loads(text, parse_int=_parse_int, parse_constant=float)
    except RecursionError:
        raise ValueError("JSON value nested too deeply") from None


def _parse_int(digits: str) -> int:
    if len(digits) <= _CHUNK:
        return int(digits)
    if digits.startswith("-"):
        return -_parse_int(digits[1:])
    value = 0
    for start in range(0, len(digits), _CHUNK):
        chunk = digits[start : start + _CHUNK]
        value = value * 10 ** len(chunk) + int(chunk)
    return value
