"""Rows of `cases/carried.jsonl` and `cases/honest.jsonl`: programs with what must become of them.

A row holds `id`, `kind`, `problem` (as in files of problems: an evaluation sample with
`input_output`, or `prompt` and `tests`), `code` and `expected_passed`; carried.jsonl adds `family`
and `note`. In place of `inputs`, `inputs_of` names a row above whose inputs these are, too.
"""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from rlif_jax import config
from rlif_jax.data.formats.own import problem_from_own
from rlif_jax.execution.pool import Judge
from rlif_jax.grading.inputs import problem_from_sample
from rlif_jax.problem import Outcome, Problem
from support.execution.official import FOLDER


def read_published(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a file in `cases/` by their ids, each with its inputs."""
    rows: dict[str, dict[str, Any]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        row = json.loads(line)
        sample = row["problem"].get("input_output", {})
        if source := sample.pop("inputs_of", None):
            sample["inputs"] = rows[source]["problem"]["input_output"]["inputs"]
        rows[row["id"]] = row
    return rows


def published_problem(row: dict[str, Any]) -> Problem:
    """The problem of a row, read as `rlif_jax.grade` reads it."""
    problem = row["problem"]
    return (problem_from_sample if "input_output" in problem else problem_from_own)(problem)


@contextlib.contextmanager
def judged(rows: dict[str, dict[str, Any]], memory_mb: int) -> Iterator[dict[str, Future[Outcome]]]:
    """The future of an Outcome for each row, while a judge of two workers is at work."""
    with Judge(config.Execution(workers=2, time_limit_s=6.0, memory_mb=memory_mb)) as judge:
        yield {
            name: judge.submit(published_problem(row), row["code"]) for name, row in rows.items()
        }
