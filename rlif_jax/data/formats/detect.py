"""Rows of any known schema to problems; a schema is recognised by its fields.

Each schema has a module beside this one: your own problems (`own`, which describes the form),
LiveCodeBench (`livecodebench`), HumanEval and HumanEval+ (`humaneval`), MBPP and MBPP+ (`mbpp`),
LeetCodeDataset (`leetcode`), SYNTHETIC-1 and Eurus-2 (`mixed`), APPS, TACO and code_contests
(`contest`). Nothing in a row is ever run or unpickled.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlif_jax.data.dates import check_contest_date
from rlif_jax.data.formats.contest import PRIVATE, PUBLIC, STATEMENTS, problem_from_contest
from rlif_jax.data.formats.evalplus import INPUT_FIELDS
from rlif_jax.data.formats.fields import id_field
from rlif_jax.data.formats.humaneval import TEST_FIELDS as HUMANEVAL_TESTS
from rlif_jax.data.formats.humaneval import defines, problem_from_humaneval
from rlif_jax.data.formats.leetcode import problem_from_leetcode
from rlif_jax.data.formats.livecodebench import only_public_tests, problem_from_row
from rlif_jax.data.formats.mbpp import TEST_FIELDS as MBPP_TESTS
from rlif_jax.data.formats.mbpp import problem_from_mbpp
from rlif_jax.data.formats.mixed import problem_from_eurus, problem_from_synthetic
from rlif_jax.data.formats.own import problem_from_own
from rlif_jax.errors import UserError, shown
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Problem

_TESTS = re.compile(
    r"(\w+_)?(tests?|test_?cases?|test_list|asserts?|assertions?|input_output)"
    r"|(base|plus|test|public|private|hidden)_(inputs?|outputs?)",
    re.IGNORECASE,
)
"""Names of fields that hold tests, in the sets that are known and in those made of them."""


def problem_from_any(
    row: Any, where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a row of any schema in `SCHEMAS`; see `read_row`."""
    return read_row(row, where, time_limit_s)[0]


def read_row(
    row: Any, where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> tuple[Problem, str]:
    """The problem of a row, and a warning about a valid row, "" for no warning.

    The row's schema is the first of `SCHEMAS` whose fields it has. Rows without a time limit of
    their own get `time_limit_s`, in seconds per test.

    Raises UserError, with `where`, the row's id, the field, its value and the remedy: for a row of
    no known schema, for one that is not as its schema asks, for one with tests in a field that its
    schema does not read, for tests that cannot be judged (`rlif_jax.judgeable`), and for an invalid
    contest date.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a row must be a JSON object, not {shown(row)}.")
    if (schema := schema_of(row)) is None:
        raise _of_no_schema(row, where)
    problem = schema.read(row, where, time_limit_s)
    place = f"{where} (id {problem.id!r})"
    if unread := schema.unread_tests(row):
        raise UserError(
            f"{place}: field {unread[0]} seems to hold tests, {shown(row[unread[0]])}, which rows "
            f"of {schema.name} do not have; a row is not judged by a part of its tests, so move "
            "them to a field that is read, or remove or rename the field."
        )
    check_judgeable(problem, place)
    check_contest_date(problem, place)
    return problem, schema.warning(row)


def _of_no_schema(row: Mapping[str, Any], where: str) -> UserError:
    nearest = min(SCHEMAS, key=lambda schema: len(schema.lacks(row)) / len(schema.needs))
    name = id_field(row, ("id", "question_id", "task_id", "problem_id", "name"), where)
    place = where if name is None else f"{where} (id {name!r})"
    return UserError(
        f"{place}: a row of no known schema; its fields are "
        f"{shown(sorted(map(str, row)))}. For the nearest, {nearest.name}, it lacks "
        f"{' and '.join(' or '.join(names) for names in nearest.lacks(row))}. Schemas are "
        f"recognised by these fields: {'; '.join(map(str, SCHEMAS))}."
    )


@dataclass(frozen=True)
class Schema:
    """A form of rows: those with a field that is not null of each group of `needs`, if it `fits`.

    `tests` are the fields whose tests `read` uses, all of them in each row.
    """

    name: str
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Mapping[str, Any], str, float], Problem]
    tests: tuple[str, ...]
    fits: Callable[[Mapping[str, Any]], bool] = lambda row: True
    warning: Callable[[Mapping[str, Any]], str] = lambda row: ""
    """A warning about a valid row, "" for no warning."""

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


def _is_statement(row: Mapping[str, Any]) -> bool:
    """Whether the prompt is a statement (MBPP+), not a function to complete (HumanEval+)."""
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
