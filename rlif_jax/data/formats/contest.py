"""Rows of APPS, TACO and code_contests, and of sets flattened from them, to problems.

APPS (https://huggingface.co/datasets/codeparrot/apps): `problem_id`, `question`, `solutions` and
`input_output` (JSON texts; the latter {inputs, outputs, fn_name?}), `difficulty`, `url`,
`starter_code`. TACO (https://huggingface.co/datasets/BAAI/TACO) lacks the id and adds `name`,
`source`, `date` and `time_limit` ("2.0 seconds"). code_contests
(https://huggingface.co/datasets/deepmind/code_contests; contest_problem.proto in
github.com/google-deepmind/code_contests): `name`, `description`, `public_tests`, `private_tests`
and `generated_tests` ({input, output}, both lists, or a list of such pairs), `solutions` (programs
by language, where 3 is Python 3), `source` and `difficulty` (the Hub's class labels), `time_limit`
({seconds, nanos}), `input_file`. Flattened sets call the statement `problem` and have the tests,
in any of these forms or their JSON, in `tests`, `test_samples` (agentica-org/DeepCoder-Preview-
Dataset, iamtarun/code_contest_processed) or in two lists `test_input` and `test_output`
(Gen-Verse/CodeContests_train).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlif_jax.data.extract import extract_code
from rlif_jax.data.formats.cases import Case, cases_of, tests_of
from rlif_jax.data.formats.fields import (
    check_unicode,
    id_field,
    json_value,
    positive_seconds,
    text_field,
)
from rlif_jax.errors import UserError, shown
from rlif_jax.judgeable import parsed
from rlif_jax.problem import Problem

STATEMENTS = ("question", "description", "problem")
PUBLIC = ("public_tests", "test_samples")
PRIVATE = ("private_tests", "generated_tests", "input_output", "tests")
SOURCES = ("", "codechef", "codeforces", "hackerearth", "codejam", "atcoder", "aizu")
"""The Hub's class labels of `source`; the numbers of the protocol buffer differ from 5 on."""
DIFFICULTIES = (
    "",
    "easy",
    "medium",
    "hard",
    "harder",
    "hardest",
    "external",
    *"abcdefghijklmnopqrstuv",
)
"""The Hub's class labels of `difficulty`; letters are the place in the contest."""
_HOST = re.compile(r"https?://(?:[^/]+\.)?([^./]+)\.[^./]+(?:/|$)")
_PYTHON3 = (3, "PYTHON3", "Python3", "python3", "python")
_SECONDS = re.compile(r"\s*([0-9.]+)\s*(?:s|secs?|seconds?)?\.?\s*", re.IGNORECASE)


def problem_from_contest(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem` of a row of APPS, TACO, code_contests or a set flattened from them.

    The id is `id`, `task_id`, "apps/N" for `problem_id` N, the `name` of code_contests after its
    platform, or else a digest of the statement. A contest's time limit holds for each test, though
    it was set for compiled programs; rows without one get `time_limit_s`. `metadata` has the
    platform, difficulty, date and title of the row, and in "solution" the first of its
    programs that is Python 3.

    Raises UserError, with `where`, the row's id, the field and the remedy.
    """
    statement_field = next((name for name in STATEMENTS if row.get(name)), STATEMENTS[0])
    statement = text_field(row, statement_field, where, required=True)
    platform = _platform(row, where)
    name = _name(row, statement, platform, where)
    where = f"{where} (id {name!r})"
    if text_field(row, "input_file", where) or text_field(row, "output_file", where):
        raise UserError(
            f"{where}: it is solved by reading and writing files, {row.get('input_file')!r} and "
            f"{row.get('output_file')!r}, which is not judged here; remove the row."
        )
    tests, entry_point = tests_of(_cases(row, where), where)
    described = {
        "platform": platform,
        "difficulty": _labelled(row, "difficulty", DIFFICULTIES, where),
        "contest_date": text_field(row, "date", where) or text_field(row, "contest_date", where),
        "question_title": text_field(row, "name", where),
        "solution": first_python(_solutions(row, where), "solutions", where),
    }
    return Problem(
        id=name,
        prompt=statement,
        tests=tests,
        starter_code=text_field(row, "starter_code", where),
        entry_point=entry_point,
        time_limit_s=_seconds(row, time_limit_s, where),
        metadata={key: value for key, value in described.items() if value},
    )


def _cases(row: Mapping[str, Any], where: str) -> list[Case]:
    cases = []
    for field in (*PUBLIC, *PRIVATE):
        cases += cases_of(row.get(field), field, field not in PUBLIC, where)
    if "test_input" in row:
        both = {"input": row["test_input"], "output": row.get("test_output")}
        cases += cases_of(both, "test_input and test_output", True, where)
    return cases


def _name(row: Mapping[str, Any], statement: str, platform: str, where: str) -> str:
    given = id_field(row, ("id", "problem_id", "task_id"), where)
    if isinstance(given, str):
        return given
    if given is not None:
        return f"{'apps' if given == row.get('problem_id') else platform or 'contest'}/{given}"
    # Names of code_contests may agree between platforms; those of TACO name several problems.
    if "description" in row and (title := text_field(row, "name", where)):
        return f"{platform}/{title}" if platform else title
    return f"question-{hashlib.sha256(statement.encode()).hexdigest()[:16]}"


def _platform(row: Mapping[str, Any], where: str) -> str:
    """Where the problem comes from: `source`, else the name in the host of `url`."""
    if source := _labelled(row, "source", SOURCES, where):
        return source
    host = _HOST.match(text_field(row, "url", where))
    return host[1].lower() if host else ""


def _labelled(row: Mapping[str, Any], field: str, labels: Sequence[str], where: str) -> str:
    """A text in lower case, or in a row of code_contests the label of a number; "" if unknown."""
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        known = "description" in row and 0 <= value < len(labels)
        return labels[value] if known else str(value)
    text = text_field(row, field, where).lower()
    return "" if text.startswith("unknown") else text


def _seconds(row: Mapping[str, Any], default: float, where: str) -> float:
    """The time limit in `time_limit_s`, `time_limit` or `test_time_limit`, in seconds per test."""
    names = ("time_limit_s", "time_limit", "test_time_limit")
    name = next((n for n in names if row.get(n) not in (None, "")), None)
    if name is None:
        return positive_seconds(default, "the time limit is", where)
    value = limit = row[name]
    if isinstance(value, dict):
        try:  # a protocol buffer's Duration; its seconds are a text in JSON
            limit = int(value.get("seconds") or 0) + int(value.get("nanos") or 0) / 1e9
        except (TypeError, ValueError, OverflowError):
            limit = value
        if limit == 0:  # in code_contests: unknown
            return positive_seconds(default, "the time limit is", where)
    elif isinstance(value, str) and (match := _SECONDS.fullmatch(value)):
        try:
            limit = float(match[1])
        except ValueError:
            limit = value
    return positive_seconds(limit, f"field {name} is", where)


def first_python(value: Any, field: str, where: str) -> str:
    """The first program in a field that is Python 3, or "".

    The field may hold a text, a list of texts or of {language, solution}, or an object with both as
    lists. UserError when it holds anything else.
    """
    for program in _programs(value, field, where):
        check_unicode(program, field, where)
        # Some sets wrap each program as a model would.
        code = extract_code(program) if "```" in program else program
        if code and code.strip():
            try:
                parsed(code)
            except ValueError:  # Python 2 or another language
                continue
            return code
    return ""


def _solutions(row: Mapping[str, Any], where: str) -> Any:
    """What the row has as its programs, read from JSON where it is JSON."""
    if row.get("solution"):
        return row["solution"]
    value = row.get("solutions") or []
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    return json_value(value, "solutions", where)


def _programs(value: Any, field: str, where: str) -> list[str]:
    """The programs that may be Python 3."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        programs, languages = value.get("solution"), value.get("language")
        if isinstance(programs, list) and isinstance(languages, list | None):
            languages = languages or [None] * len(programs)
            value = [
                {"language": language, "solution": program}
                for language, program in zip(languages, programs, strict=False)
            ]
    if not isinstance(value, list):
        raise UserError(f"{where}: field {field} is {shown(value)}; it must be a list of texts.")
    programs = []
    for number, item in enumerate(value, start=1):
        if isinstance(item, dict):
            if item.get("language") not in (None, *_PYTHON3):
                continue
            item = item.get("solution")
        if not isinstance(item, str):
            raise UserError(
                f"{where}: field {field}, element {number} is {shown(item)}; it must be text."
            )
        programs.append(item)
    return programs
