"""What grading reads: a file of problems, looked up by id, and a file of programs for them.

Neither is ever held in memory: problems are found again by their place in the file, or in a
temporary copy where the file is compressed. (Going back in a compressed file would read it again
from its beginning.)
"""

import contextlib
import functools
import hashlib
import tempfile
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rlif_jax.data.dates import check_contest_date
from rlif_jax.data.errata import erratum_reason
from rlif_jax.data.extract import extract_code
from rlif_jax.data.faults import RowFault, lines_of, refusal
from rlif_jax.data.formats.detect import read_row, schema_of
from rlif_jax.data.formats.fields import (
    DESCRIPTIVE_FIELDS,
    check_unicode,
    function_name,
    json_field,
    positive_seconds,
)
from rlif_jax.data.formats.lines import parse_line, read_lines, read_rows
from rlif_jax.errors import UserError, shown
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Problem, Test, is_body
from rlif_jax.storage.compressed import decompressor

CACHED_PROBLEMS = 16


class ProblemFile:
    """The problems of a JSONL file by id; all rows are checked first, then read when asked for.

    A row is of any schema that problem sets have (`formats.problem_from_any`), or else, with
    `input_output`, an evaluation sample (`problem_from_sample`). Its id is the problem's, as it is
    in training and evaluation, and completions repeat that: "mbpp/7" for the `task_id` 7 of MBPP,
    "apps/12" for the `problem_id` 12 of APPS (`contest_rows.problem_from_contest` tells those of
    sets without ids). Rows without a time limit of their own get `time_limit_s`, in seconds per
    test. Ids and offsets stay in memory, and the problems that were used last. `warnings` holds a
    line for each thing that people should know of rows.

    Raises UserError when the file is not a regular one or holds no problem, when rows are bad, when
    their tests cannot be judged (`judgeable.check_judgeable`), or when an id comes twice.
    """

    def __init__(self, path: Path, time_limit_s: float = Problem.time_limit_s):
        if not path.is_file():
            raise UserError(
                f"{path} is not a file of problems; give a regular file, not a folder or a pipe, "
                "because rows are looked up in it."
            )
        self._path = path
        self._time_limit_s = time_limit_s
        self._places: dict[str, tuple[str, int]] = {}
        self.errata: dict[str, str] = {}
        """Why a problem of LiveCodeBench's errata should not be graded, by id."""
        self._copy = self._new_copy() if decompressor(path) else None
        self.digests: dict[str, str] = {}
        """Of each problem's row, by id."""
        self.started: set[str] = set()
        """The ids of problems with starter code that opens a function."""
        self._cached = functools.lru_cache(CACHED_PROBLEMS)(self._read)
        faults, warnings = [], []
        for where, offset, line in read_lines(path, "problems"):
            try:
                problem, warning = self._checked(line, where)
            except UserError as error:
                faults.append(RowFault.of(error, where))
                continue
            if warning:
                warnings.append(RowFault(where, problem.id, warning))
            self._places[problem.id] = where, self._kept(offset, line)
            self.digests[problem.id] = hashlib.sha256(line.strip()).hexdigest()
            if problem.entry_point is not None and problem.starter_code:
                self.started.add(problem.id)
            if (reason := erratum_reason(problem)) is not None:
                self.errata[problem.id] = reason
        if faults:
            raise refusal(faults, path)
        if not self._places:
            raise UserError(f"{path} holds no problems; add one row per line.")
        self.warnings = lines_of(warnings)

    def _new_copy(self) -> BinaryIO:
        """A temporary file for the lines, which ends with this object."""
        stack = contextlib.ExitStack()
        weakref.finalize(self, stack.close)
        return stack.enter_context(tempfile.TemporaryFile())

    def _kept(self, offset: int, line: bytes) -> int:
        """Where a line will be read from, in the file or in its copy."""
        if self._copy is None:
            return offset
        try:
            offset = self._copy.tell()
            self._copy.write(line if line.endswith(b"\n") else line + b"\n")
        except OSError as error:
            raise UserError(
                f"Cannot unpack the problems in {self._path} to {tempfile.gettempdir()}: "
                f"{error.strerror}. Free some space, or point the environment variable TMPDIR to a "
                "folder that has it."
            ) from error
        return offset

    def _checked(self, line: bytes, where: str) -> tuple[Problem, str]:
        """The problem in a line, whose id no other has, and what people should know of it."""
        problem, warning = self._problem(parse_line(line, where), where)
        if problem.id in self._places:
            raise UserError(
                f"{where}: the id {problem.id!r} was already used at "
                f"{self._places[problem.id][0]}; give each problem an id of its own."
            )
        return problem, warning

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, problem_id: str) -> bool:
        return problem_id in self._places

    def __getitem__(self, problem_id: str) -> Problem:
        return self._cached(problem_id)

    def _read(self, problem_id: str) -> Problem:
        where, offset = self._places[problem_id]
        try:
            with contextlib.ExitStack() as stack:
                file = self._copy or stack.enter_context(open(self._path, "rb"))
                file.seek(offset)
                line = file.readline()
        except OSError as error:
            raise UserError(
                f"Cannot read the problems in {self._path}: {error.strerror}. Leave the file in "
                "place until grading is done."
            ) from error
        problem, _ = self._problem(parse_line(line, where), where)
        if problem.id != problem_id:
            raise UserError(f"{where} has changed while it was in use; grade again.")
        return problem

    def _problem(self, row: Any, where: str) -> tuple[Problem, str]:
        if not (isinstance(row, dict) and "input_output" in row and schema_of(row) is None):
            return read_row(row, where, self._time_limit_s)
        problem = problem_from_sample(row, where, self._time_limit_s)
        check_judgeable(problem, f"{where} (id {problem.id!r})")
        check_contest_date(problem, f"{where} (id {problem.id!r})")
        return problem, ""


def problem_from_sample(
    row: Mapping[str, Any], where: str = "row", time_limit_s: float = Problem.time_limit_s
) -> Problem:
    """The `Problem`, without a prompt, of an evaluation sample of LiveCodeBench.

    `id` is text; `input_output`, an object or its JSON, has the lists `inputs` and `outputs`,
    equally long, and `fn_name` for functional problems. An input is text or a list of lines, an
    output is text. `time_limit_s` (seconds per test) is optional; its default is the argument.

    Raises UserError, with `where`, the row's id, the field and the remedy.
    """
    name = row.get("id")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{where}: field id is {shown(name)}; give each problem an id, as text, that its "
            "completions repeat."
        )
    check_unicode(name, "id", where)
    where = f"{where} (id {name!r})"
    cases = row["input_output"]
    if isinstance(cases, str):
        cases = json_field(cases, "input_output", dict, where)
    if not isinstance(cases, dict):
        raise UserError(
            f"{where}: field input_output must be an object with inputs and outputs, or its JSON, "
            f"not {shown(cases)}."
        )
    inputs, outputs = (_list_of(cases, key, where) for key in ("inputs", "outputs"))
    if len(inputs) != len(outputs):
        raise UserError(
            f"{where}: field input_output has {len(inputs)} inputs and {len(outputs)} outputs; "
            "each test needs one of both."
        )
    if not inputs:
        raise UserError(
            f"{where}: no tests in input_output; a problem without tests cannot be judged, so add "
            "at least one or remove the row."
        )
    entry_point = function_name(cases.get("fn_name"), "field input_output has fn_name", where)
    kind = "stdin" if entry_point is None else "functional"
    tests = tuple(
        Test(_text(i, f"inputs[{n}]", where), _text(o, f"outputs[{n}]", where, False), kind, True)
        for n, (i, o) in enumerate(zip(inputs, outputs, strict=True))
    )
    limit = row.get("time_limit_s")
    return Problem(
        id=name,
        prompt="",
        tests=tests,
        entry_point=entry_point,
        time_limit_s=positive_seconds(
            time_limit_s if limit is None else limit, "field time_limit_s is", where
        ),
        metadata={key: row[key] for key in DESCRIPTIVE_FIELDS if isinstance(row.get(key), str)},
    )


@dataclass(frozen=True)
class Completion:
    """A row of the completions: for the problem `id`, a program or a model's text with one."""

    id: str
    text: str | None
    is_code: bool

    @property
    def code(self) -> str | None:
        """The program, by `extract_code` from a model's text; None when there is none."""
        return self.text if self.is_code or self.text is None else extract_code(self.text)


def read_completions(
    path: Path, known: Collection[str] | ProblemFile, started: Collection[str] = ()
) -> Iterator[Completion]:
    """Yield the rows of a JSONL file: {id, code} or {id, completion}, each text or null, for none.

    A row with both fields is taken by its code. A completion that is the mere body of a function,
    as in HumanEval's own files, is code where the problem has starter code for it. Raises UserError
    naming the file and line of a bad
    row or of an id that is not among the `known` ones; `started` are those with starter code.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is not a file of completions; give a regular file, not a folder or a pipe, "
            "because it is read twice."
        )
    for where, row in read_rows(path, "completions"):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise UserError(
                f"{where}: {shown(row)} is not a completion; each row is an object with the id "
                "of its problem, as text, and code or completion."
            )
        if row["id"] not in known:
            raise UserError(
                f"{where}: there is no problem with the id {row['id']!r}; add it to the problems, "
                "or remove the row."
            )
        is_code = "code" in row
        name = "code" if is_code else "completion"
        if name not in row:
            raise UserError(
                f"{where} (id {row['id']!r}): the row has neither code nor completion; give one "
                "of them, as text, or null where there is none."
            )
        if not isinstance(text := row[name], str | None):
            raise UserError(
                f"{where} (id {row['id']!r}): {name} is {shown(text)}; give it as text, or null "
                "where there is none."
            )
        if text is not None and row["id"] in started and is_body(text):
            is_code = is_code or "```" not in text
        yield Completion(row["id"], text, is_code)


def _list_of(cases: Mapping[str, Any], key: str, where: str) -> list:
    value = cases.get(key)
    if not isinstance(value, list):
        raise UserError(
            f"{where}: {key} of input_output must be a list, one element per test, not "
            f"{shown(value)}."
        )
    return value


def _text(value: Any, name: str, where: str, lines: bool = True) -> str:
    """An input or output as one text; a list of lines is joined where `lines` allows one."""
    if lines and isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise UserError(
            f"{where}: {name} of input_output is {shown(value)}; it must be text"
            f"{' or a list of lines' if lines else ''} (JSON inside a string for functional tests)."
        )
    check_unicode(value, f"input_output, {name}", where)
    return value
