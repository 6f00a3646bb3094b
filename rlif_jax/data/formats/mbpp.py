"""MBPP rows to problems.

The schema is that of https://huggingface.co/datasets/google-research-datasets/mbpp: `task_id`,
`text` (in the sanitized part `prompt`), `code` (a reference program), `test_list` (texts of Python
that assert), `challenge_test_list`, and what tests need before them, `test_setup_code` (a text) or
`test_imports` (a list of texts). Some copies are one JSON array, as sanitized-mbpp.json; the
message that refuses one has a command that writes a row in each line.

Rows of evalplus/mbppplus on the Hugging Face Hub have these fields, too, and in `test` the
source of one more test, with EvalPlus's inputs and results. EvalPlus's release files have inputs
in fields of their own (`evalplus.py`), the reference in `canonical_solution`, and a
`prompt` that is a docstring: the statement and, where there is no `test_list`, an assert or more.

A statement of MBPP often does not name the function. So the prompt continues, as in the paper
(Austin et al. 2021, arXiv 2108.07732, section 2.1), with "Your code should pass these tests:" and
the asserts of `test_list`, which are public for that reason; all other tests are private.

Unlike in MBPP's own harness, a program and its asserts run in two processes with plain data
between them (`detect.py` says what that is). So a program fails when its function
returns a generator, an array or another object, even where the assert makes a list of it, and every
program fails when an assert calls a class or a second function of the program.
`python -m rlif_jax.check` names the rows whose own `code` fails.
"""

import ast
import builtins
import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from rlif_jax.data.formats.evalplus import evalplus_tests, has_inputs
from rlif_jax.data.formats.fields import (
    function_name,
    id_field,
    positive_seconds,
    text_field,
    texts_field,
)
from rlif_jax.errors import UserError, shown
from rlif_jax.judgeable import parsed
from rlif_jax.problem import Problem, Test

TEST_FIELDS = (
    "test_list",
    "challenge_test_list",
    "test",
    "base_input",
    "plus_input",
    "assertion",
)


def problem_from_mbpp(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of an MBPP row: one test of kind "assert" for each text of `test_list`.

    Then those of `challenge_test_list`, that of `test`, and those of EvalPlus's inputs, whose
    results `assertion` repeats. The id of task 601 is "mbpp/601". The function is the one that the
    asserts call and the reference defines; a field `entry_point` overrides that. `metadata` has the
    reference, `code` or `canonical_solution`, in "solution".

    Raises UserError, with `where`, the row's id, the field and the remedy.
    """
    task = id_field(row, ("task_id",), where)
    if task is None:
        raise UserError(f"{where}: field task_id is missing; number the problems in it.")
    name = f"mbpp/{task}" if isinstance(task, int) else task
    where = f"{where} (id {name!r})"
    statement = _plain(text_field(row, "text" if row.get("text") else "prompt", where, True))
    code = _plain(text_field(row, "code" if row.get("code") else "canonical_solution", where))
    public = [_plain(test).strip() for test in texts_field(row, "test_list", where)]
    if not public and not has_inputs(row):
        raise UserError(f"{where}: field test_list has no tests; add one or remove the row.")
    private = [*texts_field(row, "challenge_test_list", where), text_field(row, "test", where)]
    if not has_inputs(row):
        private.append(text_field(row, "assertion", where))
    private = [_plain(test).strip() for test in private]
    setup = [*texts_field(row, "test_imports", where), text_field(row, "test_setup_code", where)]
    before = "".join(f"{_plain(part).strip()}\n" for part in setup if part.strip())
    entry_point = function_name(row.get("entry_point"), "field entry_point is", where)
    entry_point = entry_point or _tested_function(code, public, where)
    limit = row.get("time_limit_s")
    return Problem(
        id=name,
        prompt=_prompt(statement, public),
        tests=(
            *(Test(before + test, "", "assert") for test in public),
            *(Test(before + test, "", "assert", private=True) for test in private if test),
            *evalplus_tests(row, "MBPP", code, entry_point, where),
        ),
        entry_point=entry_point,
        time_limit_s=positive_seconds(
            time_limit_s if limit is None else limit, "field time_limit_s is", where
        ),
        metadata={"solution": code} if code.strip() else {},
    )


def _prompt(statement: str, tests: Sequence[str]) -> str:
    """The statement, or that in a docstring, and the asserts that the program should pass."""
    with contextlib.suppress(ValueError):
        match parsed(statement).body:
            case [ast.Expr(ast.Constant(str(text)))]:
                text, mark, shown_test = inspect.cleandoc(text).partition("\nassert ")
                statement = text
                tests = tests or [mark.lstrip() + shown_test] * bool(mark)
    head = [f"{statement.strip()}\n\nYour code should pass these tests:"] if tests else [statement]
    return "\n".join([*head, *tests])


def _plain(text: str) -> str:
    """Lines ended by a newline alone; much of MBPP has a carriage return before or instead."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _tested_function(code: str, tests: Sequence[str], where: str) -> str:
    """The outermost function of the first test that `code` defines, or, without it, no builtin.

    One that every test calls comes before one that only some do.
    """
    if not tests:
        raise UserError(
            f"{where}: field entry_point is missing; name in it the function that is called."
        )
    called = [_called(test, number, where) for number, test in enumerate(tests, start=1)]
    try:
        body = parsed(code).body
    except ValueError:  # Python 2, most likely
        body = []
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    known = [n for n in called[0] if (n in defined if defined else not hasattr(builtins, n))]
    everywhere = [name for name in known if all(name in names for names in called)]
    if not known:
        raise UserError(
            f"{where}: field test_list, test 1 calls no function that field code defines: "
            f"{shown(tests[0])}; name the function in a field entry_point."
        )
    return (everywhere or known)[0]


def _called(test: str, number: int, where: str) -> list[str]:
    """Names that a test calls, outermost first."""
    try:
        tree = parsed(test)
    except ValueError as error:
        raise UserError(
            f"{where}: field test_list, test {number} is not Python: {error}, in {shown(test)}; "
            "write statements that assert."
        ) from error
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.id for call in calls if isinstance(call, ast.Name)]
