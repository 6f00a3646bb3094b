"""What grading writes: one row per completion, in their order, from which a later run goes on."""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from rlif_jax.errors import UserError, shown
from rlif_jax.grading.inputs import Completion
from rlif_jax.problem import Outcome, Verdict

_VERDICTS = frozenset(Verdict)


def graded_row(completion: Completion, outcome: Outcome) -> dict[str, Any]:
    """The row of a judged completion; `program` is a digest by which a later run knows it again."""
    return {
        "id": completion.id,
        "passed": outcome.passed,
        "verdict": outcome.verdict,
        "results": list(outcome.results),
        "tests_run": len(outcome.results),
        "tests_total": outcome.tests_total,
        "seconds": round(outcome.seconds, 6),
        "detail": outcome.detail,
        "program": _digest(completion.code),
    }


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
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise UserError(
                    f"--out {path} is not a regular file, and an interrupted run could not go on "
                    "from it; name a file."
                )
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise UserError(
                f"--out {path} is being written by another run; wait for it, or name another file."
            ) from error
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._new and os.fstat(self._fd).st_size == 0:  # refused input leaves nothing behind
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(self._fd)

    def resume(
        self,
        completions: Iterable[Completion],
        skipped: Mapping[str, str],
        keep: Callable[[Mapping[str, Any]], None],
    ) -> tuple[int, int]:
        """Go behind the rows that are there; return their number and that of all completions.

        Every row must be the result of the completion at its place, or one skipped for the reason
        that `skipped` has for its problem; each is given to `keep`. A last line that an
        interruption cut short is removed. All completions are read, and checked by that, before.

        Raises UserError when the file holds anything else; then it is left as it was.
        """
        done = total = end = 0
        torn = False
        with open(self._fd, "rb", closefd=False) as file:
            for completion in completions:
                total += 1
                if torn:
                    continue
                line = file.readline()
                torn = not line.endswith(b"\n")
                row = None if torn else _row(line, completion, skipped.get(completion.id))
                if row is not None:
                    keep(row)
                    done, end = done + 1, end + len(line)
                elif not (torn and _begins_row(line, completion)):
                    raise UserError(
                        f"--out {self._path} line {total} is not the result of completion {total} "
                        f"(id {completion.id!r}) as it would be graded now, but "
                        f"{shown(line.decode(errors='replace'))}. Nothing was changed; name "
                        "another file, or remove this one to grade everything again."
                    )
            if not torn and file.read(1):
                raise UserError(
                    f"--out {self._path} has more rows than the {total} completions, so it belongs "
                    "to others. Nothing was changed; name another file, or remove this one."
                )
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, end, os.SEEK_SET)
        return done, total

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, so that it stays whatever happens to this process next."""
        data = json.dumps(row).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"--out {self._path} cannot be written: {error.strerror}. Check the path, its "
            "permissions and the space left; the rows written so far stay, and the same command "
            "goes on from them."
        )


def _digest(code: str | None) -> str | None:
    if code is None:
        return None
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
        and row.get("program", "") == _digest(completion.code)
        and row.get("verdict") in _VERDICTS
        and row.get("passed") is (row["verdict"] == Verdict.PASSED)
    )
    return row if same else None


def _begins_row(line: bytes, completion: Completion) -> bool:
    """Whether a line that was cut short is the beginning of this completion's row."""
    start = json.dumps({"id": completion.id})[:-1].encode()
    return line.startswith(start) or start.startswith(line)
