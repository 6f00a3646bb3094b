"""The builder of stored problem sets: checks the rows and writes them as ArrayRecord by TFDS.

TensorFlow is not needed: TFDS writes and reads ArrayRecord without it.
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from rlif_jax.data.faults import RowFault, lines_of, refusal
from rlif_jax.data.formats.livecodebench import ROW_FIELDS, row_from_problem, without_tests
from rlif_jax.data.sets.content import Content, row_digest
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem

SPLITS = ("train", "validation")
"""Parts of a set that its rows may name."""
RECORDS, STATEMENTS = "problems", "statements"
"""What TFDS calls splits: whole rows, and the same without tests, which may be many megabytes.
Which of `SPLITS` a problem belongs to, its entry says."""

ROWS_OF_FILE = 1024
CHARACTERS_TOGETHER = 10_000_000


class CodeProblems(FileReaderBuilder):
    """LiveCodeBench rows in the order of their content; info.metadata has what is known of them.

    The version covers the stored form and the readers of rows: a new version has every set built
    again.
    """

    VERSION = tfds.core.Version("4.0.0")

    def __init__(self, *, data_dir: Path, rows: "CheckedRows | None" = None):
        self._rows = rows
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in ROW_FIELDS}
        info = self.dataset_info_from_configs(
            description="Programming problems with tests, as LiveCodeBench rows.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # order is the pipeline's business
        )
        # It would look for sets that Google has published, and leave a folder in /tmp each time.
        info.initialize_from_bucket = lambda: None
        return info

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Write the rows as they come; TFDS gives the folder its name when this returns.

        TFDS's own generators would keep all rows in memory, and need TensorFlow beyond 1 GB.
        """
        checked = self._rows
        if checked is None:
            raise ValueError("a builder without rows only opens a set")
        info = self._info()  # of the folder as it is called now
        writer = tfds.core.SequentialWriter(info, ROWS_OF_FILE, file_format="array_record")
        writer.initialize_splits([RECORDS, STATEMENTS])
        for rows in _gathered(checked):
            writer.add_examples({RECORDS: rows, STATEMENTS: list(map(without_tests, rows))})
        writer.close_all()
        self.info.set_splits(info.splits)
        metadata: Any = self.info.metadata
        metadata.update(
            entries=checked.entries,
            skipped=checked.stored(checked.skipped),
            warnings=checked.stored(checked.warnings),
        )


def _gathered(rows: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Rows in lists, since TFDS writes its description of the set again for each list."""
    several, size = [], 0
    for row in rows:
        several.append(row)
        size += sum(map(len, row.values()))
        if size > CHARACTERS_TOGETHER or len(several) == ROWS_OF_FILE:
            yield several
            several, size = [], 0
    if several:
        yield several


class CheckedRows:
    """The rows to store, one after the other.

    Iteration fills `entries` with the values of an `Entry` for each row, `skipped` with the faults
    of invalid rows, and `warnings` with those about valid ones. Without `skip_bad`, all rows are
    read and then refused together if one of them is invalid.
    """

    def __init__(self, content: Content, skip_bad: bool):
        self._content = content
        self._skip_bad = skip_bad
        self._places: dict[str, str] = {}
        self._named_split: bool | None = None
        self.entries: list[tuple] = []
        self.skipped: list[RowFault] = []
        self.warnings: list[RowFault] = []

    def __iter__(self) -> Iterator[dict[str, str]]:
        for where, read in self._content.rows():
            try:
                problem, split, warning = read()
                row = self._checked(problem, split, where)
            except UserError as error:
                self.skipped.append(RowFault.of(error, where))
                continue
            self._places[problem.id] = where
            self._named_split = split is not None
            if warning:
                self.warnings.append(RowFault(where, problem.id, warning))
            self.entries.append(self._entry(problem, row_digest(row), split, where))
            if self._skip_bad or not self.skipped:
                yield row
        if self.skipped and not self._skip_bad:
            raise refusal(self.skipped, self._content.name)
        if not self.entries:
            reason = "no problems; add one row per line"
            if self.skipped:
                first = lines_of(self.skipped)[0].rstrip(".")
                reason = f"{len(self.skipped)} rows, none of them valid; the first: {first}"
            raise UserError(f"{self._content.name} holds {reason}.")

    def stored(self, faults: Iterable[RowFault]) -> list[list[str]]:
        """The faults as JSON has them, without the name of the content."""
        return [
            [self._content.without_name(text) for text in dataclasses.astuple(fault)]
            for fault in faults
        ]

    def _checked(self, problem: Problem, split: Any, where: str) -> dict[str, str]:
        place = f"{where} (id {problem.id!r})"
        if problem.id in self._places:
            raise UserError(
                f"{where}: the id {problem.id!r} was already used at {self._places[problem.id]}; "
                "give each problem an id of its own."
            )
        if split is not None and self._named_split is False:
            raise UserError(
                f"{place}: field split is {shown(split)}, but rows before it name none; give all "
                "rows a split, or none of them."
            )
        if split not in SPLITS and (split is not None or self._named_split):
            raise UserError(
                f"{place}: field split is {shown(split)}; set it to 'train' or 'validation', which "
                "keeps the problems that are trained on apart from those that measure progress."
            )
        try:
            return row_from_problem(problem)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error

    def _entry(self, problem: Problem, digest: str, split: str | None, where: str) -> tuple:
        fields = ("question_title", "platform", "difficulty", "contest_date")
        values = (problem.metadata.get(name) for name in fields)
        texts = (value if isinstance(value, str) else "" for value in values)
        place = self._content.without_name(where)
        return (problem.id, *texts, len(problem.tests), digest, split or "", place)


def build(content: Content, folder: Path, skip_bad: bool) -> None:
    """Check all rows and write the set; another process may write the same set meanwhile.

    Raises UserError for bad rows, without `skip_bad`, and OSError or RuntimeError for a full disk.
    """
    builder = CodeProblems(data_dir=folder, rows=CheckedRows(content, skip_bad))
    try:
        with _silence():
            builder.download_and_prepare()
    except OSError:
        # TFDS writes to a folder of its own and renames it; the rename fails when another process
        # was first.
        if not builder.data_path.exists():
            raise


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep TFDS's announcements and progress bars, written to both streams, off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
