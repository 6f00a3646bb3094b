"""HumanEval rows to problems: functions to complete from their docstrings (arXiv 2107.03374).

The form is that of the official package, github.com/openai/human-eval. A row has `task_id`,
`prompt` (imports, sometimes other functions, then the function's head and docstring), `entry_point`
(its name), `canonical_solution` (its body) and `test` (the source of `check(candidate)`). The
official harness runs prompt + completion + test + `check(entry_point)` within 3 seconds.

A model is shown the prompt as starter code, and answers with the whole function. What the prompt
has before the function (imports, functions that the solution or the test calls) is run before an
answer by the judge, so that an answer without it does not fail; the test sees the prompt's own
functions even where an answer redefines them.

HumanEval+ has rows of this form, too: evalplus/humanevalplus on the Hugging Face Hub with more
inputs and their results in `test`, EvalPlus's release files with inputs in fields of their own
(`rlif_jax.data.formats.evalplus`), beside HumanEval's `test` or instead of it.
"""

import re
from collections.abc import Mapping
from typing import Any

from rlif_jax.data.formats.evalplus import evalplus_tests, has_inputs
from rlif_jax.data.formats.fields import check_unicode, positive_seconds, valid_name
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem, Test

TIME_LIMIT_S = 3.0  # of the official harness
TEST_FIELDS = ("test", "base_input", "plus_input")
_FIELDS = ("task_id", "prompt", "entry_point", "test")


def problem_from_humaneval(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = TIME_LIMIT_S
) -> Problem:
    """The `Problem` of a row in HumanEval's form, with private tests of kind "assert".

    The first is `test`, which a row with EvalPlus's inputs may lack; their tests follow.
    `canonical_solution` may be missing where there is no such input; with it, metadata has
    `solution`, a whole program. The row's `time_limit_s` (seconds) is ours, and the argument holds
    for rows without one.

    Raises UserError, with `where`, the row's id, the field and the remedy.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a row must be a JSON object, not {shown(row)}.")
    if isinstance(row.get("task_id"), str):
        where = f"{where} (task_id {row['task_id']!r})"
    bare = row.get("test") is None and has_inputs(row)
    fields = {name: _text(row, name, where) for name in _FIELDS if name != "test" or not bare}
    name = valid_name(fields["entry_point"], "field entry_point has", where)
    for field, function in (("prompt", name), ("test", "check")):
        if field in fields and not defines(function, fields[field]):
            raise UserError(
                f"{where}: field {field} has no line that starts with 'def {function}('; the "
                "prompt ends in the head of the function entry_point, and the test defines "
                "check(candidate)."
            )
    metadata = {"platform": "humaneval"}
    if row.get("canonical_solution") is not None:
        metadata["solution"] = fields["prompt"] + _text(row, "canonical_solution", where)
    tests = () if bare else (f"{fields['test']}\ncheck({name})\n",)
    return Problem(
        id=fields["task_id"],
        prompt=f"The docstring says what the function {name} has to do.",
        tests=(
            *(Test(test, "", "assert", private=True) for test in tests),
            *evalplus_tests(row, "HumanEval", metadata.get("solution", ""), name, where),
        ),
        starter_code=fields["prompt"].lstrip("\n"),
        entry_point=name,
        time_limit_s=positive_seconds(
            row.get("time_limit_s", time_limit_s), "field time_limit_s is", where
        ),
        metadata=metadata,
    )


def defines(function: str, text: str) -> bool:
    """Whether a line of the text starts with the head of this function."""
    return re.search(rf"^def {re.escape(function)}\s*\(", text, re.MULTILINE) is not None


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{where}: field {name} is {shown(value)}; a row of HumanEval has "
            f"{', '.join(_FIELDS)} and, for the solution, canonical_solution, each a text that is "
            "not empty."
        )
    check_unicode(value, name, where)
    return value
