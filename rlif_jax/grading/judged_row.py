"""What a file says of a judged completion: by the same names in all files that have such rows.

These are rollouts/step_NNNNNN.jsonl of training, NAME.samples.jsonl of evaluation, and the file
that grading writes. Each adds to these names what only it knows. Times are among that: rollouts
and samples are the same bytes when a run is repeated.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from rlif_jax.problem import Outcome, Verdict

JUDGED = ("id", "passed", "verdict", "tests", "tests_run", "tests_total", "detail", "program")
"""The names that every row of a judged completion has."""


def judged_row(problem_id: str, code: str | None, outcome: Outcome | None) -> dict[str, Any]:
    """The common part of a row; without an outcome, all but `id` and `program` are None.

    `tests` holds the verdict of each test that was run, `detail` says why the first failing one
    failed, and `program` is the digest of `code`.
    """
    row = dict.fromkeys(JUDGED) | {"id": problem_id, "program": program_digest(code)}
    if outcome is None:
        return row
    return row | {
        "passed": outcome.passed,
        "verdict": outcome.verdict.value,
        "tests": [verdict.value for verdict in outcome.results],
        "tests_run": len(outcome.results),
        "tests_total": outcome.tests_total,
        "detail": outcome.detail,
    }


def program_digest(code: str | None) -> str | None:
    """A digest that tells programs apart; None for no program."""
    if code is None:
        return None
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def in_common_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any version with the common names added that can be told from what it has.

    Older files lack these: grading wrote `results` for `tests`; evaluation and training wrote
    neither `tests_run` nor `program`, whose text is their `code`; training also wrote `problem`
    for `id`, and no `passed`. Nothing tells the `detail` of those, nor the `tests_total` of
    training.
    """
    found: dict[str, Any] = {}
    if isinstance(row.get("problem"), str):
        found["id"] = row["problem"]
    if "verdict" in row:
        verdict = row["verdict"]
        found["passed"] = None if verdict is None else verdict == Verdict.PASSED
    if "results" in row:
        found["tests"] = row["results"]
    tests = row.get("tests", found.get("tests"))
    if isinstance(tests, list):
        found["tests_run"] = len(tests)
    if "code" in row:
        found["program"] = program_digest(row["code"])
    return dict(row) | {name: value for name, value in found.items() if name not in row}
