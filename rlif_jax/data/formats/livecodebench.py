"""LiveCodeBench dataset rows, the form in which problems are stored, to and from `Problem`.

A row is a flat mapping of strings; some of them hold JSON (format of
`livecodebench/code_generation_lite`): `question_content` is the statement, `starter_code` the
skeleton of a function ("" for programs that read standard input), `public_test_cases` and
`private_test_cases` JSON lists of {input, output, testtype}, `metadata` a JSON object whose
`func_name` names the function to call. Private tests may also be base64(zlib(pickle(JSON text))),
and copies of the set have lists and objects instead of their JSON, or lack the private tests.
The testtype "assert", a test's `alternatives` and all of `metadata` but `func_name` are ours.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from rlif_jax.data.formats.fields import (
    DESCRIPTIVE_FIELDS,
    check_unicode,
    function_name,
    json_field,
    positive_seconds,
    text_in,
)
from rlif_jax.data.formats.packed import unpack
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem, Test

REQUIRED_FIELDS = ("question_id", "question_content", "starter_code", "metadata")
ROW_FIELDS = (
    "question_id",
    "question_content",
    "starter_code",
    "public_test_cases",
    "private_test_cases",
    "metadata",
    *DESCRIPTIVE_FIELDS,
)

_DEFAULT_TIME_LIMIT_S = Problem.time_limit_s


def problem_from_row(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = _DEFAULT_TIME_LIMIT_S
) -> Problem:
    """The `Problem` of a dataset row: public tests first, then private ones.

    The function's name comes from `metadata.func_name`, and its presence alone decides whether the
    tests are stdin ones, as in the official checker; with it they are functional, or all of them
    assert. `metadata.time_limit_s` (seconds per test) and `metadata.preamble` are ours, and the
    argument `time_limit_s` holds for rows without one. Fields that only describe the problem and
    all other keys of `metadata` go to `Problem.metadata`.

    Raises UserError, with `where`, the row's id, the field and the remedy, when a field is missing
    or not text, when its JSON is invalid or of another shape, or when there is no test.
    """
    statement, where = _statement(row, where, time_limit_s)
    public = _test_cases_of(row, "public_test_cases", where)
    private = _test_cases_of(row, "private_test_cases", where)
    kind = _kind([*public, *private], statement.entry_point)
    tests = _tests(public, kind, False, where) + _tests(private, kind, True, where)
    if not tests:
        raise UserError(
            f"{where}: no tests in public_test_cases or private_test_cases; a problem without "
            "tests cannot be judged, so add at least one or remove the row."
        )
    return dataclasses.replace(statement, tests=tests)


def only_public_tests(row: Mapping[str, Any]) -> str:
    """The warning about a row that lacks its private tests; "" for any other row.

    An empty list states that there are none, without a warning.
    """
    if row.get("private_test_cases") is not None:
        return ""
    return (
        "field private_test_cases is missing: the problem is judged by its public tests alone, "
        "which wrong programs may pass; use the files of livecodebench/code_generation_lite, which "
        "have both."
    )


def statement_from_row(row: Mapping[str, Any], where: str = "row") -> Problem:
    """The `Problem` of a row without its tests, which are not read."""
    return _statement(row, where, _DEFAULT_TIME_LIMIT_S)[0]


def without_tests(row: Mapping[str, str]) -> dict[str, str]:
    """The part of a row that `statement_from_row` reads."""
    return {name: "" if name.endswith("_test_cases") else text for name, text in row.items()}


def _statement(row: Mapping[str, Any], where: str, time_limit_s: float) -> tuple[Problem, str]:
    """The problem of a row without its tests, and the place of the row with its id."""
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: a row must be a JSON object of strings, not {shown(row)}.")
    if isinstance(row.get("question_id"), str):
        where = f"{where} (question_id {row['question_id']!r})"
    texts = ("question_id", "question_content", "starter_code", *DESCRIPTIVE_FIELDS)
    fields = {name: _text_field(row, name, where) for name in texts}
    if not fields["question_id"]:
        raise UserError(f"{where}: field question_id is empty; give each problem an id of its own.")
    metadata = row.get("metadata")
    if not isinstance(metadata, dict):
        metadata = json_field(_text_field(row, "metadata", where), "metadata", dict, where)
    metadata = dict(metadata)
    entry_point = function_name(
        metadata.pop("func_name", None), "field metadata has func_name", where
    )
    time_limit_s = positive_seconds(
        metadata.pop("time_limit_s", time_limit_s), "field metadata has time_limit_s", where
    )
    preamble = text_in(metadata.pop("preamble", ""), "metadata, preamble", where)
    statement = Problem(
        id=fields["question_id"],
        prompt=fields["question_content"],
        tests=(),
        starter_code=fields["starter_code"],
        entry_point=entry_point,
        time_limit_s=time_limit_s,
        metadata=metadata | {name: fields[name] for name in DESCRIPTIVE_FIELDS if fields[name]},
        preamble=preamble,
    )
    return statement, where


def row_from_problem(problem: Problem) -> dict[str, str]:
    """The dataset row of a problem, private tests as plain JSON: undoes `problem_from_row`.

    What describes the problem without being text stays in `metadata`, where any JSON value can be.
    Raises UserError for a problem that a row cannot express.
    """
    _check_expressible(problem)
    texts = {name: problem.metadata.get(name) for name in DESCRIPTIVE_FIELDS}
    texts = {name: text for name, text in texts.items() if text and isinstance(text, str)}
    metadata = {name: value for name, value in problem.metadata.items() if name not in texts}
    if problem.entry_point is not None:
        metadata["func_name"] = problem.entry_point
    if problem.time_limit_s != _DEFAULT_TIME_LIMIT_S:
        metadata["time_limit_s"] = problem.time_limit_s
    if problem.preamble:
        metadata["preamble"] = problem.preamble
    return {
        "question_id": problem.id,
        "question_content": problem.prompt,
        "starter_code": problem.starter_code,
        "public_test_cases": _test_cases(t for t in problem.tests if not t.private),
        "private_test_cases": _test_cases(t for t in problem.tests if t.private),
        # JSON may spell out half a character, which only its ASCII form can store.
        "metadata": json.dumps(metadata),
    } | {name: texts.get(name, "") for name in DESCRIPTIVE_FIELDS}


def _text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name, None if name in REQUIRED_FIELDS else "")
    if value is None:
        raise UserError(
            f"{where}: field {name} is missing; LiveCodeBench rows have "
            f"{', '.join(REQUIRED_FIELDS)}."
        )
    return text_in(value, name, where)


def _test_cases_of(row: Mapping[str, Any], name: str, where: str) -> list:
    """The tests in a field: a list or its JSON, in a text that may be packed; [] if it is missing.

    UserError when it is anything else.
    """
    value = row.get(name)
    if value is None or isinstance(value, list):
        return value or []
    if not isinstance(value, str):
        raise UserError(
            f"{where}: field {name} is {shown(value)}; it must be a list of tests, or its JSON."
        )
    # Base64 of a zlib stream starts with "e" (0x78) and JSON of a list with "[": never both.
    if name == "private_test_cases" and not value.lstrip().startswith(("[", "{", '"')):
        value = unpack(value, name, where)
    return json_field(value, name, list, where)


def _kind(cases: list, entry_point: str | None) -> str:
    """The kind of a row's tests; the first test decides between the two kinds of a function."""
    if entry_point is None:
        return "stdin"
    first = cases[0] if cases and isinstance(cases[0], dict) else {}
    return "assert" if first.get("testtype") == "assert" else "functional"


def _tests(cases: list, kind: str, private: bool, where: str) -> tuple[Test, ...]:
    name = "private_test_cases" if private else "public_test_cases"
    tests = []
    for number, case in enumerate(cases, start=1):
        place = f"{where}: field {name}, test {number}"
        if not isinstance(case, dict):
            raise UserError(f"{place} is {shown(case)}, not an object with input and output.")
        if kind == "assert":
            case = {"output": ""} | case
            if case["output"]:
                raise UserError(
                    f"{place} has output {shown(case['output'])}, but its input asserts what it "
                    "expects; leave the output out."
                )
        for key in ("input", "output"):
            if not isinstance(case.get(key), str):
                raise UserError(
                    f"{place} has {key} {shown(case.get(key))}; it must be text (JSON inside a "
                    "string for functional tests)."
                )
            check_unicode(case[key], f"{name}, test {number}, {key}", where)
        if case.get("testtype", kind) != kind:
            reason = {
                "stdin": "its metadata names no func_name",
                "functional": "its metadata names a func_name",
                "assert": "its first test is, and a problem has tests of one kind",
            }[kind]
            raise UserError(
                f"{place} has testtype {shown(case['testtype'])}, but the row is {kind} because "
                f"{reason}; correct one of the two."
            )
        others = _alternatives(case, f"{name}, test {number}", where)
        tests.append(Test(case["input"], case["output"], kind, private, others))
    return tuple(tests)


def _alternatives(case: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = case.get("alternatives", [])
    if not isinstance(values, list):
        raise UserError(
            f"{where}: field {name} has alternatives {shown(values)}; write a list of outputs."
        )
    return tuple(text_in(value, f"{name}, alternatives", where) for value in values)


def _check_expressible(problem: Problem) -> None:
    if kept := {"func_name", "time_limit_s", "preamble"} & set(problem.metadata):
        raise UserError(
            f"Problem {problem.id!r} has {min(kept)!r} in its metadata, where rows keep something "
            "else under that name; rename it."
        )
    kinds = {test.kind for test in problem.tests}
    if kinds not in (({"stdin"},) if problem.entry_point is None else ({"functional"}, {"assert"})):
        raise UserError(
            f"Problem {problem.id!r} has tests of kind {' and '.join(sorted(kinds)) or 'none'} and "
            f"the entry point {problem.entry_point!r}; stdin tests need none, functional ones or "
            "asserting ones a function's name, and a problem has tests of one kind."
        )


def _test_cases(tests: Iterable[Test]) -> str:
    cases = [
        {"input": t.input, "output": t.output, "testtype": t.kind}
        | ({"alternatives": list(t.alternatives)} if t.alternatives else {})
        for t in tests
    ]
    return json.dumps(cases, ensure_ascii=False)
