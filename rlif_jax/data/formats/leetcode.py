"""LeetCodeDataset rows to problems (arXiv 2504.14655).

The schema is that of https://huggingface.co/datasets/newfacade/LeetCodeDataset: `task_id` (the
title in the address), `entry_point` ("Solution().name"), `test` (the source of `check(candidate)`,
which calls it with keyword arguments), `prompt` (imports and helper classes, which are run ahead of
a program) and `completion` (a reference program that needs them). The statement is
`problem_description`, with `starter_code`, `difficulty`, `estimated_date`, `question_id` and
`tags`; in the first versions it is in `query`, which ends in the starter code, and `meta` has the
difficulty and the number. The set's own harness runs prompt + completion + test +
`check(entry_point)`.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from rlif_jax.data.formats.fields import id_field, positive_seconds, text_field, valid_name
from rlif_jax.errors import UserError
from rlif_jax.judgeable import parsed
from rlif_jax.problem import Problem, Test

_METHOD = re.compile(r"Solution\(\)\.(\w+)")
_REQUEST = re.compile(
    r"\s*(?:Please complete the following python code[^\n]*)?\s*```python\n(.*?)\n?```\s*\Z",
    re.DOTALL | re.IGNORECASE,
)
"""What follows the statement in `query`."""


def problem_from_leetcode(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a LeetCodeDataset row, with one private test of kind "assert".

    The row's `prompt` is the problem's preamble. `metadata` has the whole reference program in
    "solution", the estimated date in "contest_date", and difficulty, number and tags. The row's
    `time_limit_s` is ours, and the argument holds for rows without one.

    Raises UserError, with `where`, the row's id, the field and the remedy; also for tests that make
    objects of the preamble's classes, linked lists and trees, which cannot be passed to a program
    in another process.
    """
    name = id_field(row, ("task_id",), where)
    if name is None:
        raise UserError(f"{where}: field task_id is missing; give each problem an id of its own.")
    name = str(name)
    where = f"{where} (id {name!r})"
    entry_point = text_field(row, "entry_point", where, required=True)
    method = _METHOD.fullmatch(entry_point.strip())
    function = valid_name(method[1] if method else entry_point, "field entry_point has", where)
    preamble = text_field(row, "prompt", where)
    test = text_field(row, "test", where, required=True)
    _check_plain(test, preamble, where)
    statement, starter_code = _statement(row, where)
    limit = row.get("time_limit_s")
    return Problem(
        id=name,
        prompt=statement,
        tests=(Test(f"{test.rstrip()}\n\ncheck({function})\n", "", "assert", private=True),),
        starter_code=starter_code,
        entry_point=function,
        time_limit_s=positive_seconds(
            time_limit_s if limit is None else limit, "field time_limit_s is", where
        ),
        metadata=_metadata(row, preamble, where),
        preamble=f"{preamble.rstrip()}\n" if preamble.strip() else "",
    )


def _statement(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The statement and the starter code, which a query has in one text."""
    starter_code = text_field(row, "starter_code", where)
    if row.get("problem_description") is not None:
        return text_field(row, "problem_description", where, required=True).strip(), starter_code
    query = text_field(row, "query", where, required=True)
    request = _REQUEST.search(query)
    if request is None:
        return query.strip(), starter_code
    return query[: request.start()].strip(), starter_code or f"{request[1].rstrip()}\n        "


def _metadata(row: Mapping[str, Any], preamble: str, where: str) -> dict[str, Any]:
    meta = row.get("meta")
    both = {**(meta if isinstance(meta, dict) else {}), **row}
    described: dict[str, Any] = {"platform": "leetcode"}
    described["difficulty"] = text_field(both, "difficulty", where).lower()
    described["contest_date"] = text_field(row, "estimated_date", where)
    for field in ("question_id", "tags"):
        described[field] = both.get(field)
    if completion := text_field(row, "completion", where):
        described["solution"] = f"{preamble.rstrip()}\n\n{completion}".lstrip("\n")
    return {field: value for field, value in described.items() if value}


def _check_plain(test: str, preamble: str, where: str) -> None:
    """Refuse a test that reaches, in the preamble, a class: its instances are not plain data."""
    try:
        used, defined = _names(parsed(test)), parsed(preamble).body
    except ValueError as error:
        raise UserError(
            f"{where}: field test or prompt is not Python: {error}; correct it or remove the row."
        ) from error
    helpers = {
        node.name: node for node in defined if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    for name in sorted(used & set(helpers)):
        waiting, seen = [name], set()
        while waiting:
            seen.add(helper := waiting.pop())
            if isinstance(helpers[helper], ast.ClassDef):
                raise UserError(
                    f"{where}: its test calls {name} of the field prompt, which needs the class "
                    f"{helper}; objects of a class are not plain data and cannot be passed to a "
                    "program in another process, so remove the row."
                )
            waiting += (_names(helpers[helper]) & set(helpers)) - seen


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
