"""The result file of an evaluation, read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from rlif_jax.errors import UserError, shown

GROUPINGS = ("platform", "difficulty")


@dataclass(frozen=True)
class PerSample:
    """What each sample of P problems came to: arrays [P, n], `groups` one value a problem."""

    ids: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    correct: np.ndarray
    length: np.ndarray
    truncated: np.ndarray

    @classmethod
    def from_json(cls, data: Any, name: str) -> Self:
        """Read `data["problems"]`, a list of objects with id, platform and difficulty (a text, or
        null), correct, length and truncated (lists with one entry for each sample); a length is
        less than 2**31 tokens.

        Raises:
            UserError: it has another form; the message names `name`, the problem and the value.
        """
        problems = data.get("problems") if isinstance(data, Mapping) else None
        if not isinstance(problems, list) or not problems:
            raise UserError(
                f"{name} is not the result of an evaluation: it has no list of problems under "
                '"problems". Give a file that `python -m rlif_jax.evaluate --out` wrote.'
            )
        for row, problem in enumerate(problems):
            _check(problem, f"{name}, problem {row}", len(_samples(problems[0])))
        ids = tuple(problem["id"] for problem in problems)
        if len(set(ids)) < len(ids):
            twice = next(each for row, each in enumerate(ids) if each in ids[:row])
            raise UserError(
                f"{name} has the problem {shown(twice)} more than once, so its samples cannot be "
                "told apart: evaluate a problem set without duplicates."
            )
        return cls(
            ids,
            {g: tuple(problem.get(g) or "" for problem in problems) for g in GROUPINGS},
            np.array([problem["correct"] for problem in problems], bool),
            np.array([problem["length"] for problem in problems], np.int64),
            np.array([problem["truncated"] for problem in problems], bool),
        )

    def only(self, ids: Sequence[str]) -> Self:
        """The results of these problems, in this order."""
        place = {each: row for row, each in enumerate(self.ids)}
        rows = [place[each] for each in ids]
        return type(self)(
            tuple(ids),
            {g: tuple(values[row] for row in rows) for g, values in self.groups.items()},
            self.correct[rows],
            self.length[rows],
            self.truncated[rows],
        )


def _samples(problem: Any) -> Sequence[Any]:
    correct = problem.get("correct") if isinstance(problem, Mapping) else None
    return correct if isinstance(correct, list) else ()


def _check(problem: Any, where: str, n: int) -> None:
    """Raise `UserError` unless a problem of the file is of the form that `from_json` describes."""
    remedy = "Give a file that `python -m rlif_jax.evaluate --out` wrote, unchanged."
    if not isinstance(problem, Mapping):
        raise UserError(f"{where} is {shown(problem)} and not an object. {remedy}")
    if not isinstance(problem.get("id"), str):
        raise UserError(
            f"{where} has the id {shown(problem.get('id'))}, which is not text. {remedy}"
        )
    where += f" ({shown(problem['id'])})"
    for grouping in GROUPINGS:
        if not isinstance(problem.get(grouping), str | None):
            raise UserError(
                f"{where} has {grouping} {shown(problem[grouping])}, which is neither text nor "
                f"null. {remedy}"
            )
    for key in ("correct", "length", "truncated"):
        values, good = problem.get(key), _is_length if key == "length" else _is_bool
        if not isinstance(values, list) or not all(map(good, values)):
            what = "whole numbers from 0 to 2**31 - 1" if key == "length" else "true or false"
            raise UserError(f"{where} has {key} {shown(values)}, not a list of {what}. {remedy}")
        if len(values) != n or not values:
            raise UserError(
                f"{where} has {len(values)} entries in {key}, and the first problem has {n} "
                f"samples: every problem needs the same number, at least one. {remedy}"
            )


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)
