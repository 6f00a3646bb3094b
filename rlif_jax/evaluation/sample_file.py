"""An evaluation's samples on disk: a line each as it is judged, from which a later run resumes.

The first line says what the samples are of; each other one is an object with the number of its
`problem` in the set and of its `sample`. While the evaluation runs they come as they are judged;
when it is over the file is put in order, so that an interrupted one leaves the same bytes.
"""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from rlif_jax.errors import UserError, shown
from rlif_jax.grading.judged_row import in_common_names
from rlif_jax.storage.jsonl import JsonlFile, json_line
from rlif_jax.storage.whole_file import write_whole

Place = tuple[int, int]
"""The number of a problem, and that of its sample."""


class SampleFile:
    """A JSONL file of samples, new or begun by an earlier run; a context manager.

    `about` decides the samples: a file with another one is refused, as is one whose rows lack a
    `needed` field. `rows` holds the samples in the file, those of older versions with the names
    of `judged_row`. A last line that an interruption cut short is removed.

    Raises UserError when it cannot be written, is in use, or belongs to other samples.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        problems: int,
        samples: int,
        needed: Collection[str] = (),
    ):
        self._path = path
        self._needed = {"problem", "sample", *needed}
        self._about = json.loads(json.dumps(about))
        self.rows: dict[Place, dict[str, Any]] = {}
        try:
            with disk_errors(path):
                self._file = JsonlFile(path, lock=True)
        except BlockingIOError as error:
            raise UserError(
                f"{path} is in use by another evaluation; wait for it, or choose another --out."
            ) from error
        try:
            self._read(problems, samples)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a sample, so that it stays whatever happens to this process next."""
        self.rows[row["problem"], row["sample"]] = dict(row)
        with disk_errors(self._path):
            self._file.append(row)

    def finish(self) -> None:
        """Put the samples in the order of problems and samples."""
        with disk_errors(self._path):
            self._file.replace([self._about, *(self.rows[place] for place in sorted(self.rows))])

    def _read(self, problems: int, samples: int) -> None:
        lines = list(self._file.lines())
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        rows = [self._parsed(line, n) for n, line in enumerate(lines, start=1)]
        if not rows and not json_line(self._about).startswith(rest):
            raise self._foreign("it is not a file of samples")
        # One without samples may have been begun with other arguments, which came to nothing.
        if not rows or (len(rows) == 1 and rows[0].keys() == self._about.keys()):
            with disk_errors(self._path):
                self._file.truncate(0)
                self._file.append(self._about)
            return
        self._check_about(rows[0])
        for number, row in enumerate(rows[1:], start=2):
            place: Any = row.get("problem"), row.get("sample")
            known = all(type(i) is int for i in place) and place not in self.rows
            known = known and self._needed <= row.keys()
            if not (known and 0 <= place[0] < problems and 0 <= place[1] < samples):
                raise self._foreign(f"line {number} is not one of its samples: {shown(row)}")
            self.rows[place] = in_common_names(row)
        self._file.truncate(sum(map(len, lines)))

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise self._foreign(f"line {number} is not a JSON object")
        return row

    def _check_about(self, found: Mapping[str, Any]) -> None:
        names = [*self._about, *(name for name in found if name not in self._about)]
        differing = [
            f"{name} is {shown(self._about.get(name))} and was {shown(found.get(name))}"
            for name in names
            if self._about.get(name) != found.get(name)
        ]
        if differing:
            raise self._foreign(f"{'; '.join(differing)}")

    def _foreign(self, why: str) -> UserError:
        return UserError(
            f"{self._path} holds the samples of another evaluation: {why}. Choose another --out, "
            "or remove the file to sample again."
        )


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """OSError as a UserError that names the file, but for that of a locked one."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Check the path, its permissions "
            "and the space left; samples written so far stay: run the same command to resume."
        ) from error


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, or leave the one that was there; UserError where that fails."""
    with disk_errors(path):
        write_whole(path, data)
