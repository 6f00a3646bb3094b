"""What grading writes: one row per completion, in their order, from which a later run resumes."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from rlif_jax.config import Execution
from rlif_jax.errors import UserError, shown
from rlif_jax.grading.inputs import Completion
from rlif_jax.grading.judged_row import in_common_names, judged_row, program_digest
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.storage.jsonl import JsonlFile

_VERDICTS = frozenset(Verdict)


def graded_row(
    completion: Completion, outcome: Outcome, judged_by: str | None = None
) -> dict[str, Any]:
    """The row of a judged completion; by `program` and `judged_by` a later run recognises it.

    `judged_by` is a digest of the problem and of what the judge was asked, see `judging_digest`.
    `results` is what older versions call `tests`: scripts read it. `seconds` is wall-clock time.
    """
    row = judged_row(completion.id, completion.code, outcome)
    row |= {"results": row["tests"], "seconds": round(outcome.seconds, 6)}
    return row if judged_by is None else row | {"judged_by": judged_by}


def judging_digest(problem: str, execution: Execution, run_all_tests: bool) -> str:
    """A digest of all that decides a program's verdict, of which `problem` is the row's own."""
    asked = [
        problem,
        run_all_tests or execution.run_all_tests,
        execution.time_limit_s,
        execution.memory_mb,
        execution.output_kb,
        execution.numeric_tolerance,
    ]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def skipped_row(completion: Completion, reason: str) -> dict[str, Any]:
    """The row of a completion that is not judged, because of its problem."""
    return {"id": completion.id, "skipped": reason}


class GradedFile:
    """A JSONL file of results, new or begun by an earlier run; a context manager.

    Raises UserError when it cannot be written, is not a regular file, or is in use by another run.
    """

    def __init__(self, path: Path):
        self._path = path
        self._new = not path.exists()
        if not (self._new or path.is_file() or path.is_dir()):
            raise UserError(
                f"--out {path} is not a regular file, so an interrupted run could not resume from "
                "it; name a file."
            )
        try:
            self._file = JsonlFile(path, lock=True)
        except BlockingIOError as error:
            raise UserError(
                f"--out {path} is being written by another run; wait for it, or name another file."
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._new and not self._file.size:  # refused input leaves nothing behind
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._file.close()

    def resume(
        self,
        completions: Iterable[Completion],
        skipped: Mapping[str, str],
        keep: Callable[[Mapping[str, Any]], None],
        judged_by: Callable[[str], str] | None = None,
    ) -> tuple[int, int]:
        """Go behind the rows that are there; return their number and that of all completions.

        Every row must be the result of the completion at its place, or one skipped for the reason
        that `skipped` has for its problem, and have the `judged_by` of its problem's id, which rows
        of older versions lack. Each is given to `keep`. A last line that an interruption cut short
        is removed. All completions are read, and checked by that, before.

        Raises UserError when the file holds anything else; then it is left as it was.
        """
        done = total = end = 0
        cut_short = False
        lines = self._file.lines()
        for completion in completions:
            total += 1
            if cut_short:
                continue
            line = next(lines, b"")
            cut_short = not line.endswith(b"\n")
            row = None if cut_short else _row(line, completion, skipped.get(completion.id))
            if row is not None:
                if judged_by and row.get("judged_by", now := judged_by(completion.id)) != now:
                    raise UserError(
                        f"--out {self._path} line {total} has the result of completion {total} (id "
                        f"{completion.id!r}) by other tests, limits or --execution options than "
                        "now. Nothing was changed; name another file, or remove this one to grade "
                        "everything again."
                    )
                keep(in_common_names(row))
                done, end = done + 1, end + len(line)
            elif not (cut_short and _begins_row(line, completion)):
                raise UserError(
                    f"--out {self._path} line {total} is not the result of completion {total} "
                    f"(id {completion.id!r}) as it would be graded now, but "
                    f"{shown(line.decode(errors='replace'))}. Nothing was changed; name "
                    "another file, or remove this one to grade everything again."
                )
        if not cut_short and next(lines, b""):
            raise UserError(
                f"--out {self._path} has more rows than the {total} completions, so it belongs "
                "to others. Nothing was changed; name another file, or remove this one."
            )
        lines.close()
        self._file.truncate(end)
        return done, total

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, so that it stays whatever happens to this process next."""
        try:
            self._file.append(row)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"--out {self._path} cannot be written: {error.strerror or error}. Check the path, its "
            "permissions and the space left; the rows written so far stay: run the same command "
            "to resume from them."
        )


def _row(line: bytes, completion: Completion, reason: str | None) -> dict[str, Any] | None:
    """The row in a line, or None when it is not this completion's."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if reason is not None:
        return row if row == skipped_row(completion, reason) else None
    same = (
        isinstance(row, dict)
        and row.get("id") == completion.id
        and row.get("program", "") == program_digest(completion.code)
        and row.get("verdict") in _VERDICTS
        and row.get("passed") is (row["verdict"] == Verdict.PASSED)
    )
    return row if same else None


def _begins_row(line: bytes, completion: Completion) -> bool:
    """Whether a line that was cut short is the beginning of this completion's row."""
    start = json.dumps({"id": completion.id})[:-1].encode()
    return line.startswith(start) or start.startswith(line)
