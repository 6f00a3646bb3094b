"""The programs of `cases/`, judged once by LiveCodeBench's checker, as problems of ours.

A row holds `id`, `input_output` (the official evaluation sample, a JSON text), `time_limit_s` and
`code`. Cases add what the checker at commit 28fef95 said under Python 3.11: `expected` (its list of
results: true, or a code or false at the first failure), `error_code` (null: passed) and `tags`.
Attacks add `category` and `what` they try. A `kind` is that of tests which are not the checker's.
"""

import json
from typing import Any

from rlif_jax.problem import Problem, Test
from support import CASES

FOLDER = CASES


def read_rows(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a file in `cases/` by their ids."""
    rows = [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
    return {row["id"]: row for row in rows}


def problem_of(row: dict[str, Any]) -> Problem:
    """The problem of a row; one without inputs has no tests."""
    sample = json.loads(row["input_output"])
    entry_point = sample.get("fn_name")
    kind = row.get("kind") or ("functional" if entry_point else "stdin")
    pairs = zip(sample.get("inputs", []), sample.get("outputs", []), strict=True)
    return Problem(
        id=row["id"],
        prompt="",
        tests=tuple(Test(given, answer, kind) for given, answer in pairs),
        entry_point=entry_point,
        time_limit_s=row["time_limit_s"],
    )


def row(name: str, inputs: list[str], outputs: list[str], entry_point: str | None = None) -> dict:
    """A problem as `official.problem_of` reads it."""
    sample = {"inputs": inputs, "outputs": outputs, "fn_name": entry_point}
    return {"id": name, "input_output": json.dumps(sample), "time_limit_s": 6}
