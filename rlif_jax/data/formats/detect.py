"""Problems out of rows of any known schema, told apart by their fields.

Your own problems are a JSONL file, one JSON object in each line, with these fields:

    id            text       names the problem; each its own
    prompt        text       the statement, with the examples that it needs; tests are never shown
    tests         list       at least one test, all of one of these forms:
        {"input": "3 4\\n", "output": "7\\n"}      a program reads the input and prints the output
        {"input": [[3, 1, 2], true], "output": [1, 2, 3]}
                                                 entry_point, called with these arguments, returns
                                                 the output; both are any JSON
        "assert area(2, 3) == 6"                 Python that asserts what entry_point returns; also
                                                 {"assert": "..."}, of several lines if need be
    entry_point   text       the function that tests call; leave it out for programs
    starter_code  text       optional: the beginning of the answer, shown with the prompt
    solution      text       optional: a whole program that passes, by which the tests are checked
    time_limit_s  number     optional: seconds of CPU time for each test, 6 by default
    platform, difficulty, contest_date (2024-08-01), question_title, contest_id
                  text       optional: what scores are broken down and problems filtered by
    split         text       optional, in all rows or in none: "train" or "validation"

Tests of Python that asserts cannot ask everything. The program runs in another process, and copies
pass between it and the test, as plain data: None, booleans, numbers, texts, bytes, lists, tuples,
sets, dicts and ranges of these, and the builtin types of all these (int, not a class of that name).
So

- a test fails when an argument or a result is anything else: a generator or another iterator (also
  inside `list(...)` in the test), a view of a dict, a deque, an array of NumPy, a Decimal or
  Fraction that equals no int or float, a date, a function, an object of the program's own class;
- a result may be a match of `re`, but an argument may not, nor anything inside a result: the test
  can ask whether it is true or None, and it has no method and is equal to nothing of the test's;
- a test can call entry_point, a function or a method of a class Solution, and nothing else of the
  program: no second function, no class, no method of a result;
- an instance of a subclass becomes its builtin base (a Counter a dict, a namedtuple a tuple), and
  an exception the nearest builtin one; what `is` says of a result means nothing;
- the order in which a set is iterated is not kept: `list(f(x))` of one may differ on the two sides;
- what a call changes in a list, dict or set that it was given, the test sees in that argument, but
  not in another name that the test has for a part of it.

Other fields are ignored, unless they look like one of these misspelt, or their name says that they
hold tests: a row is used with all of its tests, or refused. For example

    {"id": "double", "prompt": "Write a function double(x) that returns 2x.",
     "tests": [{"input": [2], "output": 4}], "entry_point": "double",
     "solution": "def double(x):\\n    return 2 * x"}

Rows of public sets are read as they are, each by a module beside this one: LiveCodeBench (`rows`),
HumanEval and HumanEval+ (`sets/humaneval.py`), MBPP and MBPP+ (`mbpp`), LeetCodeDataset
(`leetcode`), SYNTHETIC-1 and Eurus-2 (`mixed`), APPS, TACO and code_contests (`contest`). Nothing
in a row is ever run or unpickled.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlif_jax.data.formats.cases import as_json
from rlif_jax.data.formats.contest import PRIVATE, PUBLIC, STATEMENTS, problem_from_contest
from rlif_jax.data.formats.evalplus import INPUT_FIELDS
from rlif_jax.data.formats.fields import id_field, list_or_json, text_field
from rlif_jax.data.formats.judgeable import check_judgeable
from rlif_jax.data.formats.leetcode import problem_from_leetcode
from rlif_jax.data.formats.mbpp import TEST_FIELDS as MBPP_TESTS
from rlif_jax.data.formats.mbpp import problem_from_mbpp
from rlif_jax.data.formats.mixed import problem_from_eurus, problem_from_synthetic
from rlif_jax.data.formats.rows import (
    DESCRIPTIVE_FIELDS,
    check_unicode,
    function_name,
    only_public_tests,
    positive_seconds,
    problem_from_row,
    shorten,
)
from rlif_jax.data.sets.humaneval import TEST_FIELDS as HUMANEVAL_TESTS
from rlif_jax.data.sets.humaneval import defines, problem_from_humaneval
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

_TESTS = re.compile(
    r"(\w+_)?(tests?|test_?cases?|test_list|asserts?|assertions?|input_output)"
    r"|(base|plus|test|public|private|hidden)_(inputs?|outputs?)",
    re.IGNORECASE,
)
"""Names of fields that hold tests, in the sets that are known and in those made of them."""


def problem_from_any(
    row: Any, where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a row of any schema in `SCHEMAS`; the first whose fields it has.

    Rows without a time limit of their own get `time_limit_s`, in seconds per test.

    Raises UserError, with `where`, the row's id, the field, its value and the remedy: for a row of
    no known schema, for one that is not as its schema asks, for one with tests in a field that its
    schema does not read, and for tests that cannot be judged
    (`rlif_jax.data.formats.judgeable.check_judgeable`).
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a row must be a JSON object, not {shorten(row)}.")
    if (schema := schema_of(row)) is not None:
        problem = schema.read(row, where, time_limit_s)
        place = f"{where} (id {problem.id!r})"
        if unread := schema.unread_tests(row):
            raise UserError(
                f"{place}: field {unread[0]} seems to hold tests, {shown(row[unread[0]])}, which "
                f"rows of {schema.name} do not have; a row is not judged by a part of its tests, "
                "so move them to a field that is read, or remove or rename the field."
            )
        check_judgeable(problem, place)
        return problem
    nearest = min(SCHEMAS, key=lambda schema: len(schema.lacks(row)) / len(schema.needs))
    name = id_field(row, ("id", "question_id", "task_id", "problem_id", "name"), where)
    place = where if name is None else f"{where} (id {name!r})"
    raise UserError(
        f"{place}: a row of no known schema; its fields are "
        f"{shown(sorted(map(str, row)))}. For the nearest, {nearest.name}, it lacks "
        f"{' and '.join(' or '.join(names) for names in nearest.lacks(row))}. Schemas are told "
        f"apart by these fields: {'; '.join(map(str, SCHEMAS))}."
    )


@dataclass(frozen=True)
class Schema:
    """A form of rows; a row is one if of each group of `needs` it has a field that is not null.

    And if it `fits`, where fields do not tell. `tests` are the fields whose tests `read` uses, all
    of them in each row.
    """

    name: str
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Mapping[str, Any], str, float], Problem]
    tests: tuple[str, ...]
    fits: Callable[[Mapping[str, Any]], bool] = lambda row: True
    warning: Callable[[Mapping[str, Any]], str] = lambda row: ""
    """What people should know of a row that can be used; "" for nothing."""

    def lacks(self, row: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """The groups of which the row has no field."""
        return [names for names in self.needs if all(row.get(name) is None for name in names)]

    def unread_tests(self, row: Mapping[str, Any]) -> list[str]:
        """The fields of the row that by their names hold tests, have some, and are not read."""
        return [
            str(field)
            for field, value in row.items()
            if _TESTS.fullmatch(str(field)) and field not in self.tests and _filled(value)
        ]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('|'.join(names) for names in self.needs)})"


def schema_of(row: Mapping[str, Any]) -> Schema | None:
    """The first of `SCHEMAS` whose fields the row has."""
    fitting = (schema for schema in SCHEMAS if not schema.lacks(row) and schema.fits(row))
    return next(fitting, None)


def _filled(value: Any) -> bool:
    """Whether it may be tests: a text, list or object with something in it."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null")
    return isinstance(value, list | dict) and bool(value)


def warning_of(row: Any) -> str:
    """What people should know of a row that `problem_from_any` reads; "" for nothing."""
    schema = schema_of(row) if isinstance(row, Mapping) else None
    return schema.warning(row) if schema is not None else ""


def problem_from_own(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a row in the schema that this module documents; its tests are private.

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
        return Test(source, "", "assert", private=True)
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
        return Test(test["input"], test["output"], "stdin", private=True)
    if not isinstance(test["input"], list):
        raise UserError(
            f"{place} has input {shown(test['input'])}; write the list of the arguments of "
            f"{entry_point}, or leave entry_point out if a program reads the input."
        )
    arguments = "\n".join(map(as_json, test["input"]))
    return Test(arguments, as_json(test["output"]), "functional", private=True)


def _is_statement(row: Mapping[str, Any]) -> bool:
    """Whether the prompt is no function to complete: MBPP+'s, where HumanEval+'s is one."""
    return not defines(str(row["entry_point"]), str(row["prompt"]))


_EVALPLUS_NEEDS = (("prompt",), ("entry_point",), ("canonical_solution",), INPUT_FIELDS)

SCHEMAS = (
    Schema("problems of your own", (("prompt",), ("tests",)), problem_from_own, tests=("tests",)),
    Schema(
        "LiveCodeBench",
        (("question_content",), ("public_test_cases", "private_test_cases")),
        problem_from_row,
        tests=("public_test_cases", "private_test_cases"),
        warning=only_public_tests,
    ),
    Schema("MBPP", (("text", "prompt"), ("test_list",)), problem_from_mbpp, tests=MBPP_TESTS),
    Schema(
        "LeetCodeDataset",
        (("problem_description", "query"), ("entry_point",), ("test",)),
        problem_from_leetcode,
        tests=("test", "input_output"),  # the latter repeats them in another form
    ),
    Schema("SYNTHETIC-1", (("prompt",), ("verification_info",)), problem_from_synthetic, tests=()),
    Schema("Eurus-2", (("prompt",), ("reward_model",)), problem_from_eurus, tests=()),
    Schema(
        "HumanEval",
        (("prompt",), ("entry_point",), ("test",)),
        problem_from_humaneval,
        tests=HUMANEVAL_TESTS,
    ),
    Schema("MBPP+", _EVALPLUS_NEEDS, problem_from_mbpp, tests=MBPP_TESTS, fits=_is_statement),
    Schema("HumanEval+", _EVALPLUS_NEEDS, problem_from_humaneval, tests=HUMANEVAL_TESTS),
    Schema(
        "APPS, TACO and code_contests",
        (STATEMENTS, (*PUBLIC, *PRIVATE, "test_input")),
        problem_from_contest,
        tests=(*PUBLIC, *PRIVATE, "test_input", "test_output"),
    ),
)
