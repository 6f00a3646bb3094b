"""Rows of SYNTHETIC-1 and Eurus-2, which mix tasks of programming with others, to problems.

SYNTHETIC-1 (https://huggingface.co/datasets/PrimeIntellect/SYNTHETIC-1, and verifiable-coding-
problems, from which it is made): `problem_id`, `task_type`, `prompt`, `gold_standard_solution` and
`verification_info`, an object or its JSON, with `language` and `test_cases`, each {type, fn_name,
input, output} with the type "stdin_stdout" or "function_call".

Eurus-2 (https://huggingface.co/datasets/PRIME-RL/Eurus-2-RL-Data), the form of verl's data sets:
`prompt` (chat messages), `ability`, `reward_model.ground_truth` (for programs the JSON of {inputs,
outputs, fn_name?}), `data_source`, and `extra_info` with `split` and `index`.

Tests are in the forms of APPS and TACO, from which most of these rows come (`cases.tests_of`).
Beyond that, SYNTHETIC-1's checker (`code_test_verifier.py` in github.com/PrimeIntellect-ai/genesys)
compares what is printed of a result, so that an output "[1, 2]" may be that text or the list; and
Eurus-2's (`prime_code/testing_util.py` in github.com/PRIME-RL/PRIME) reads a function's arguments
and output from JSON first and then goes by APPS's rules.
"""

import ast
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rlif_jax.data.formats.cases import Case, as_json, cases_of, tests_of
from rlif_jax.data.formats.contest import first_python
from rlif_jax.data.formats.fields import (
    id_field,
    json_field,
    positive_seconds,
    text_field,
    text_in,
)
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem, Test

PROGRAMMING = ("verifiable_code", "code", "coding")
"""Task types and abilities whose rows have tests of programs."""


def problem_from_synthetic(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a SYNTHETIC-1 row; its tests are private.

    Raises UserError, with `where`, the row's id, the field and the remedy; also for a row of a task
    other than programming, or in a language other than Python.
    """
    name = id_field(row, ("problem_id", "id"), where)
    if name is None:
        raise UserError(
            f"{where}: field problem_id is missing; give each problem an id of its own."
        )
    name = str(name)
    where = f"{where} (id {name!r})"
    _check_programming(row, "task_type", where)
    info = _object(row["verification_info"], "verification_info", where)
    if (language := info.get("language") or "python") not in ("python", "python3"):
        raise UserError(
            f"{where}: verification_info has the language {shown(language)}, and only programs in "
            "Python are judged; remove the row."
        )
    cases = cases_of(info.get("test_cases"), "verification_info.test_cases", True, where)
    tests, entry_point = tests_of(cases, where)
    described = {
        "platform": text_field(row, "source", where).lower(),
        "solution": first_python(
            row.get("gold_standard_solution") or [], "gold_standard_solution", where
        ),
    }
    return Problem(
        id=name,
        prompt=text_field(row, "prompt", where, required=True),
        tests=tuple(map(_printed, cases, tests)),
        entry_point=entry_point,
        time_limit_s=positive_seconds(time_limit_s, "the time limit is", where),
        metadata={key: value for key, value in described.items() if value},
    )


def problem_from_eurus(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a row of Eurus-2 or of a set in its form; its tests are private.

    The statement is what the user says in the prompt. The id is made of `extra_info`, as
    "eurus2/train/7", or else a digest of the statement.

    Raises UserError, with `where`, the row's id, the field and the remedy; also for a row of an
    ability other than programming.
    """
    statement = _statement(row["prompt"], where)
    name = _name(row, statement, where)
    where = f"{where} (id {name!r})"
    _check_programming(row, "ability", where)
    reward_model = _object(row["reward_model"], "reward_model", where)
    cases = cases_of(reward_model.get("ground_truth"), "reward_model.ground_truth", True, where)
    tests, entry_point = tests_of(list(map(_from_json, cases)), where)
    platform = text_field(row, "data_source", where).lower()
    return Problem(
        id=name,
        prompt=statement,
        tests=tests,
        entry_point=entry_point,
        time_limit_s=positive_seconds(time_limit_s, "the time limit is", where),
        metadata={"platform": platform} if platform else {},
    )


def _printed(case: Case, test: Test) -> Test:
    """The test, with another right output where that is a text and also what a value prints."""
    if test.kind != "functional" or isinstance(case.input, str) or not isinstance(case.output, str):
        return test
    try:
        value = ast.literal_eval(case.output.strip())
        if str(value) != case.output.strip():
            return test
        return dataclasses.replace(test, alternatives=(*test.alternatives, as_json(value)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return test  # not a Python literal, or not expressible in JSON


def _from_json(case: Case) -> Case:
    """A function's case with values in place of their JSON; any other case unchanged."""
    if case.function is None or not (isinstance(case.input, str) and isinstance(case.output, str)):
        return case
    try:
        values = [json.loads(line) for line in case.input.split("\n") if line.strip()]
        return dataclasses.replace(case, input=values, output=json.loads(case.output))
    except (ValueError, RecursionError):
        return case


def _check_programming(row: Mapping[str, Any], field: str, where: str) -> None:
    task = row.get(field)
    if task is not None and task not in PROGRAMMING:
        raise UserError(
            f"{where}: field {field} is {shown(task)}, a task without tests of programs; remove "
            "the row."
        )


def _object(value: Any, name: str, where: str) -> dict[str, Any]:
    """An object, or the object in a JSON text; UserError when it is neither."""
    if isinstance(value, str):
        return json_field(value, name, dict, where)
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: field {name} is {shown(value)}; it must be an object, or its JSON."
        )
    return value


def _statement(prompt: Any, where: str) -> str:
    """A text, or what the user says in a list of messages."""
    if isinstance(prompt, list):
        texts = [
            message.get("content")
            for message in prompt
            if isinstance(message, dict) and message.get("role") == "user"
        ]
        if len(texts) != 1:
            raise UserError(
                f"{where}: field prompt has {len(texts)} messages of the user: {shown(prompt)}; it "
                "must have one, with the statement."
            )
        prompt = texts[0]
    return text_field({"prompt": prompt}, "prompt", where, required=True)


def _name(row: Mapping[str, Any], statement: str, where: str) -> str:
    if (given := id_field(row, ("id", "problem_id", "task_id"), where)) is not None:
        return str(given)
    extra = row.get("extra_info")
    extra = extra if isinstance(extra, dict) else {}
    if (index := id_field(extra, ("index",), where)) is not None:
        split = text_in(extra.get("split") or "", "extra_info.split", where)
        return "/".join(filter(None, ("eurus2", split, str(index))))
    return f"question-{hashlib.sha256(statement.encode()).hexdigest()[:16]}"
