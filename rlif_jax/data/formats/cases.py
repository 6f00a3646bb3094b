"""Tests as APPS, TACO, code_contests and sets made of them write them, to tests of one problem."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlif_jax.data.formats.fields import check_unicode, function_name, json_value
from rlif_jax.errors import UserError, shown
from rlif_jax.judgeable import long_integers
from rlif_jax.problem import Test


@dataclass(frozen=True)
class Case:
    """An input and an output as a row has them; `place` names them in messages.

    `function` is the one to call with the input, None for standard input.
    """

    place: str
    input: Any
    output: Any
    function: str | None
    private: bool


def cases_of(value: Any, field: str, private: bool, where: str) -> list[Case]:
    """The cases in a field: {inputs, outputs, fn_name?}, {input, output} with lists, or pairs.

    A pair is {input, output}; its function is its `fn_name` or its `metadata.func_name`. The field
    may also hold the JSON of any of these; null and "" hold no cases.

    Raises UserError when it holds anything else.
    """
    if isinstance(value, str) and value.strip():
        value = json_value(value, field, where)
    if value is None or value == "":
        return []
    if isinstance(value, dict):
        return _columns(value, field, private, where)
    if not isinstance(value, list):
        raise UserError(
            f"{where}: field {field} is {shown(value)}; it must be an object with inputs and "
            "outputs, or a list of objects with input and output."
        )
    cases = []
    for number, pair in enumerate(value, start=1):
        place = f"field {field}, test {number}"
        if not isinstance(pair, dict) or "input" not in pair or "output" not in pair:
            raise UserError(
                f"{where}: {place} is {shown(pair)}; it must be an object with input and output."
            )
        metadata = pair.get("metadata")
        named = metadata.get("func_name") if isinstance(metadata, dict) else None
        function = _function(pair.get("fn_name") or named, place, where)
        cases.append(Case(place, pair["input"], pair["output"], function, private))
    return cases


def _columns(value: dict[str, Any], field: str, private: bool, where: str) -> list[Case]:
    names = ("inputs", "outputs") if "inputs" in value else ("input", "output")
    columns: list[list] = []
    for name in names:
        if not isinstance(column := value.get(name), list):
            raise UserError(
                f"{where}: {name} of field {field} is {shown(column)}; it must be a list, one "
                "element per test."
            )
        columns.append(column)
    if len(columns[0]) != len(columns[1]):
        raise UserError(
            f"{where}: field {field} has {len(columns[0])} {names[0]} and {len(columns[1])} "
            f"{names[1]}; each test needs one of both."
        )
    function = _function(value.get("fn_name"), f"field {field}", where)
    pairs = enumerate(zip(*columns, strict=True), start=1)
    return [Case(f"field {field}, test {n}", i, o, function, private) for n, (i, o) in pairs]


def _function(name: Any, place: str, where: str) -> str | None:
    return function_name(name or None, f"{place} has the function name", where)


def tests_of(cases: Sequence[Case], where: str) -> tuple[tuple[Test, ...], str | None]:
    """The tests, public ones first, and the name of the function that they call, if they do.

    A program's input or output is a text, or a list of lines. A function's input is the list of its
    arguments and its output the value that is returned, or a list that holds nothing but that
    value. A row of APPS or TACO does not say which, so both results are right where the output is
    a list of one element, as for their own checkers (`testing_util.py` of either).
    LiveCodeBench's form is taken as it is: an input text with one JSON value per line, and the JSON
    of the output.

    Raises UserError when there is no case, when one has another form, and when an argument is an
    object whose keys those checkers would make numbers, which JSON cannot have as keys.
    """
    if not cases:
        raise UserError(
            f"{where}: it has no tests; a problem without tests cannot be judged, so add at least "
            "one or remove the row."
        )
    functions = {case.function for case in cases}
    if len(functions) > 1:
        named = ", ".join(sorted(repr(name) for name in functions))
        raise UserError(f"{where}: its tests call several functions, {named}; keep those of one.")
    entry_point = functions.pop()
    cases = sorted(cases, key=lambda case: case.private)
    if entry_point is None:
        tests = [
            Test(_lines(c, "input", where), _lines(c, "output", where), "stdin", c.private)
            for c in cases
        ]
        return tuple(tests), None
    values = [case.output for case in cases if not isinstance(case.input, str)]
    wrapped = all(isinstance(value, list) and len(value) == 1 for value in values)
    return tuple(_call(case, wrapped, where) for case in cases), entry_point


def _lines(case: Case, name: str, where: str) -> str:
    text = getattr(case, name)
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = "\n".join(line.removesuffix("\n") for line in text)
    if not isinstance(text, str):
        raise UserError(
            f"{where}: {case.place} has {name} {shown(text)}; it must be text or a list of lines. "
            "If it belongs to a function, name that in fn_name."
        )
    check_unicode(text, f"{case.place.removeprefix('field ')}, {name}", where)
    return text


def _call(case: Case, wrapped: bool, where: str) -> Test:
    """A test that calls the function, one JSON value per argument and one for each result.

    `wrapped` says that all outputs of the problem may be lists that hold nothing but the result.
    """
    if isinstance(case.input, str):
        return Test(
            _lines(case, "input", where), _lines(case, "output", where), "functional", case.private
        )
    if not isinstance(case.input, list):
        raise UserError(
            f"{where}: {case.place} has input {shown(case.input)}; a function's input is the list "
            "of its arguments."
        )
    if case.input and _has_numbers_for_keys(case.input[0]):
        raise UserError(
            f"{where}: {case.place} has the argument {shown(case.input[0])}, whose keys are "
            "numbers to the checkers of APPS and TACO and texts in JSON; write it as a Python "
            "assert in a row of your own, or remove the row."
        )
    arguments = "\n".join(as_json(value) for value in case.input)
    outputs = [as_json(case.output)]
    if isinstance(case.output, list) and len(case.output) == 1:
        outputs.insert(0 if wrapped else 1, as_json(case.output[0]))
    return Test(arguments, outputs[0], "functional", case.private, tuple(outputs[1:]))


def _has_numbers_for_keys(value: Any) -> bool:
    """Whether a value is an object whose keys are all whole numbers, written as texts."""
    if not isinstance(value, dict) or not value:
        return False
    try:
        return bool(list(map(int, value)))
    except ValueError:
        return False


def as_json(value: Any) -> str:
    """A value as JSON in one line, in ASCII, which can spell out even half a character."""
    with long_integers():
        return json.dumps(value)
