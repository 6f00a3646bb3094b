"""Rows of your own problems, in the form that this module describes, to problems.

Your own problems are a JSONL file, one JSON object in each line, with these fields:

    id            text       names the problem; each its own
    prompt        text       the statement, with the examples that it needs; tests are never shown
    tests         list       at least one test, all of one of these forms:
        {"input": "3 4\\n", "output": "7\\n"}      a program reads the input and prints the output
        {"input": [[3, 1, 2], true], "output": [1, 2, 3]}
                                                 entry_point, called with these arguments, returns
                                                 the output; both are any JSON
        "assert area(2, 3) == 6"                 Python that asserts what entry_point returns; also
                                                 {"assert": "..."}, of one or more lines
                             in an object "public": true marks an example of the statement, on which
                             reward.vote_inputs=examples and fuzz have programs vote
    entry_point   text       the function that tests call; leave it out for programs
    starter_code  text       optional: the beginning of the answer, shown with the prompt
    solution      text       optional: a whole program that passes, by which the tests are checked
    time_limit_s  number     optional: seconds of CPU time for each test, 6 by default
    platform, difficulty, contest_date (2024-08-01), question_title, contest_id
                  text       optional: what scores are broken down and problems filtered by
    split         text       optional, in all rows or in none: "train" or "validation"

Tests of Python that asserts have limits. The program runs in another process, and copies
pass between it and the test, as plain data: None, booleans, numbers, texts, bytes, lists, tuples,
sets, dicts and ranges of these, and the builtin types of all these (int, not a class of that name).
So

- a test fails for any other argument or result: a generator or another iterator (also inside
  `list(...)` in the test), a view of a dict, a deque, an array of NumPy, a Decimal or Fraction that
  does not equal an int or float, a date, a function, an object of the program's own class;
- a result may be a match of `re`, but an argument may not, nor anything inside a result: the test
  can ask whether it is true or None, but it has no methods and equals nothing of the test;
- a test can call entry_point, a function or a method of a class Solution, and nothing else of the
  program: no second function, no class, no method of a result;
- an instance of a subclass becomes its builtin base (a Counter a dict, a namedtuple a tuple), and
  an exception the nearest builtin one; what `is` says of a result means nothing;
- the iteration order of a set is not kept: `list(f(x))` may differ between program and test;
- changes that a call makes to a list, dict or set that it was given are seen by the test in that
  argument, but not through another name that the test has for a part of it.

Other fields are ignored, unless they look like one of these misspelt, or their name says that they
hold tests: a row is used with all of its tests or refused. For example

    {"id": "double", "prompt": "Write a function double(x) that returns 2x.",
     "tests": [{"input": [2], "output": 4}], "entry_point": "double",
     "solution": "def double(x):\\n    return 2 * x"}
"""

import difflib
from collections.abc import Mapping
from typing import Any

from rlif_jax.data.formats.cases import as_json
from rlif_jax.data.formats.fields import (
    DESCRIPTIVE_FIELDS,
    check_unicode,
    function_name,
    id_field,
    list_or_json,
    positive_seconds,
    text_field,
)
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem, Test

OWN_FIELDS = (
    "id",
    "prompt",
    "tests",
    "entry_point",
    "starter_code",
    "solution",
    "time_limit_s",
    *DESCRIPTIVE_FIELDS,
    "split",
)


def problem_from_own(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a row in the form that this module describes.

    Raises UserError, with `where`, the row's id, the field and the remedy.
    """
    name = id_field(row, ("id",), where)
    if name is None:
        raise UserError(f"{where}: field id is missing; give each problem an id of its own.")
    name = str(name)
    where = f"{where} (id {name!r})"
    _check_spelling(row, where)
    entry_point = function_name(row.get("entry_point") or None, "field entry_point is", where)
    tests = list_or_json(row["tests"], "tests", where)
    if not tests:
        raise UserError(
            f"{where}: field tests is empty; a problem without tests cannot be judged, so add at "
            "least one or remove the row."
        )
    limit = row.get("time_limit_s")
    described = (*DESCRIPTIVE_FIELDS, "solution")
    metadata = {field: text_field(row, field, where) for field in described}
    return Problem(
        id=name,
        prompt=text_field(row, "prompt", where, required=True),
        tests=tuple(_own_test(t, n, entry_point, where) for n, t in enumerate(tests, start=1)),
        starter_code=text_field(row, "starter_code", where),
        entry_point=entry_point,
        time_limit_s=positive_seconds(
            time_limit_s if limit is None else limit, "field time_limit_s is", where
        ),
        metadata={field: text for field, text in metadata.items() if text},
    )


def _check_spelling(row: Mapping[str, Any], where: str) -> None:
    for field in row:
        if field in OWN_FIELDS:
            continue
        for meant in difflib.get_close_matches(str(field), OWN_FIELDS, n=1, cutoff=0.8):
            raise UserError(
                f"{where}: field {field} is not known; write {meant} if that is meant, or give it "
                "another name."
            )


def _own_test(test: Any, number: int, entry_point: str | None, where: str) -> Test:
    place = f"{where}: field tests, test {number}"
    if isinstance(test, str) or (isinstance(test, dict) and "assert" in test):
        source = test if isinstance(test, str) else test["assert"]
        if not isinstance(source, str):
            raise UserError(f"{place} has assert {shown(source)}; write Python in a text.")
        check_unicode(source, f"tests, test {number}", where)
        if entry_point is None:
            raise UserError(
                f"{place} is Python, {shown(source)}, and no entry_point is named; name in it the "
                "function that the test calls."
            )
        return Test(source, "", "assert", _private(test, place))
    if not isinstance(test, dict) or "input" not in test or "output" not in test:
        raise UserError(
            f"{place} is {shown(test)}; write an object with input and output, or Python that "
            "asserts as a text."
        )
    if entry_point is None:
        for key in ("input", "output"):
            if not isinstance(test[key], str):
                raise UserError(
                    f"{place} has {key} {shown(test[key])}; write the text that a program reads or "
                    "prints, or name in entry_point the function to call."
                )
            check_unicode(test[key], f"tests, test {number}, {key}", where)
        return Test(test["input"], test["output"], "stdin", _private(test, place))
    if not isinstance(test["input"], list):
        raise UserError(
            f"{place} has input {shown(test['input'])}; write the list of the arguments of "
            f"{entry_point}, or leave entry_point out if a program reads the input."
        )
    arguments = "\n".join(map(as_json, test["input"]))
    return Test(arguments, as_json(test["output"]), "functional", _private(test, place))


def _private(test: Any, place: str) -> bool:
    """Whether a test is hidden: all are that do not say that they are public."""
    public = test.get("public", False) if isinstance(test, dict) else False
    if not isinstance(public, bool):
        raise UserError(f"{place} has public {shown(public)}; write true or false.")
    return not public
