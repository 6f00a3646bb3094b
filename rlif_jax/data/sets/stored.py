"""Problems as ArrayRecord files: built once by TFDS in the user's cache, checked on the way.

TensorFlow is not needed: TFDS writes and reads ArrayRecord without it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from rlif_jax.data.faults import RowFault, lines_of, refusal
from rlif_jax.data.formats.detect import warning_of
from rlif_jax.data.formats.rows import (
    ROW_FIELDS,
    parse_line,
    problem_from_row,
    read_lines,
    row_from_problem,
    statement_from_row,
    without_tests,
)
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem
from rlif_jax.storage.digests import file_digest, signature
from rlif_jax.storage.user_cache import cache_folder

LARGE_BYTES = 100e6
"""Of content that takes so long to build that people are told."""

SPLITS = ("train", "validation")
RECORDS, STATEMENTS = "problems", "statements"
"""What TFDS calls splits: whole rows, and the same without tests, which may be many megabytes.
Which problems are for training, their entries tell."""

ROWS_OF_FILE = 1024
_TOGETHER_CHARACTERS = 10_000_000

_CONTENT = "\0"  # stands for the content's name in stored places, as it may be elsewhere later


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a problem without reading its record; a text is "" where it has none.

    `tests` is their number, `digest` tells the problem from others, `split` is the part of the set
    that the row names, `place` where it is in the content.
    """

    id: str
    question_title: str
    platform: str
    difficulty: str
    contest_date: str
    tests: int
    digest: str
    split: str
    place: str


@dataclasses.dataclass(frozen=True)
class Content:
    """What a set is built from; `digest` changes with it, `name` names it in messages.

    `size` is in bytes. `rows()` yields the place of each row and a function that reads it: the
    problem, the split that it names or None, and what people should know of the row or "". Reading
    a bad row raises UserError.
    """

    name: str
    stem: str
    digest: str
    size: int
    rows: Callable[[], Iterator[tuple[str, "Read"]]]


Read = Callable[[], tuple[Problem, Any, str]]


@dataclasses.dataclass(frozen=True)
class BuiltSet:
    """Problems by index, in the order of the content; the faults of rows left out; and warnings."""

    records: Sequence[Mapping[str, bytes]]
    statements: Sequence[Mapping[str, bytes]]
    entries: tuple[Entry, ...]
    skipped: tuple[RowFault, ...]
    warnings: tuple[RowFault, ...]

    def problem(self, index: int, where: str) -> Problem:
        """The problem of one record; `where` names it should the record be damaged."""
        return problem_from_row(_texts(self.records[index]), where)

    def statement(self, index: int, where: str) -> Problem:
        """The problem without its tests, which are not read."""
        return statement_from_row(_texts(self.statements[index]), where)


def _texts(record: Mapping[str, bytes]) -> dict[str, str]:
    return {field: value.decode() for field, value in record.items()}


def jsonl_content(path: Path, read: Callable[[Any, str], tuple[Problem, Any]]) -> Content:
    """A JSONL file whose rows `read(row, place)` makes problems of, with their split or None.

    Raises UserError when it is not a file that can be read; `rows` does so, too, when the file is
    written to meanwhile.
    """
    before = signature(path)
    digest = file_digest(path)

    def rows() -> Iterator[tuple[str, Read]]:
        for where, _, line in read_lines(path, "problems"):
            yield where, functools.partial(_read_line, line, where, read)
        if signature(path) != before:
            raise UserError(f"{path} was written to while it was read; run again when it is whole.")

    return Content(str(path), path.stem, digest, path.stat().st_size, rows)


def _read_line(line: bytes, where: str, read: Callable) -> tuple[Problem, Any, str]:
    row = parse_line(line, where)
    return *read(row, where), warning_of(row)


def listed_content(name: str, problems: Sequence[tuple[str, Problem]]) -> Content:
    """Problems at hand, each with its place, none of which names a split."""
    digest = hashlib.sha256()
    for _, problem in problems:
        digest.update(_digest(row_from_problem(problem)).encode())

    def rows() -> Iterator[tuple[str, Read]]:
        for where, problem in problems:
            yield where, lambda problem=problem: (problem, None, "")

    return Content(name, name, digest.hexdigest(), 0, rows)


def built_set(
    content: Content, skip_bad: bool = False, notice: Callable[[str], Any] | None = None
) -> BuiltSet:
    """The set of this content, built if it is not; any number of processes may do so at once.

    Every row is checked before the set is there at all. It lies under `cache_folder()`, in a folder
    named after the digest of the content. With `skip_bad`, rows that cannot be used are left out;
    their faults are kept beside the records. Without, UserError is raised for them, also where the
    set was built without them. It is raised, too, when there are no problems and when the cache
    cannot be written.
    """
    folder = cache_folder() / "datasets" / f"{content.stem}-{content.digest[:16]}"
    try:
        builder = CodeProblems(data_dir=folder)
        if not builder.data_path.exists():
            if notice is not None and content.size > LARGE_BYTES:
                notice(f"preparing {content.name} ({content.size / 1e6:.0f} MB), once, in {folder}")
            _build(content, folder, skip_bad)
            builder = CodeProblems(data_dir=folder)
    except (OSError, RuntimeError) as error:  # ArrayRecord reports a full disk as RuntimeError
        raise UserError(
            f"Cannot keep the problems of {content.name} in {folder}: {error}. Free some space, or "
            "point the environment variable RLIF_CACHE to a folder that can be written."
        ) from error
    kept = builder.info.metadata
    skipped, warnings = (
        tuple(RowFault(*(_named(text, content) for text in fault)) for fault in kept[name])
        for name in ("skipped", "warnings")
    )
    if skipped and not skip_bad:
        raise refusal(skipped, content.name)
    entries = tuple(Entry(*values, _named(place, content)) for *values, place in kept["entries"])
    records, statements = map(builder.as_data_source, (RECORDS, STATEMENTS))
    return BuiltSet(records, statements, entries, skipped, warnings)


class CodeProblems(FileReaderBuilder):
    """LiveCodeBench rows in the order of their content; info.metadata has what is known of them.

    The version is that of what is stored, which the readers of rows decide, too: a new one has
    every set built anew.
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

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Write the rows as they come; TFDS gives the folder its name when this returns.

        TFDS's own generators would keep all rows in memory, and need TensorFlow beyond 1 GB.
        """
        info = self._info()  # of the folder as it is called now
        writer = tfds.core.SequentialWriter(info, ROWS_OF_FILE, file_format="array_record")
        writer.initialize_splits([RECORDS, STATEMENTS])
        for rows in _gathered(self._rows):
            writer.add_examples({RECORDS: rows, STATEMENTS: list(map(without_tests, rows))})
        writer.close_all()
        self.info.set_splits(info.splits)
        rows = self._rows
        self.info.metadata.update(
            entries=rows.entries,
            skipped=rows.stored(rows.skipped),
            warnings=rows.stored(rows.warnings),
        )


def _gathered(rows: Iterable[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Rows in lists, as TFDS writes its account of the set anew with each list."""
    several, size = [], 0
    for row in rows:
        several.append(row)
        size += sum(map(len, row.values()))
        if size > _TOGETHER_CHARACTERS or len(several) == ROWS_OF_FILE:
            yield several
            several, size = [], 0
    if several:
        yield several


class CheckedRows:
    """The rows to store, one after the other; what is known of them gathers in `entries`.

    An entry holds the values of an `Entry`. `skipped` holds the faults of rows left out, `warnings`
    what people should know of rows that are not. Without `skip_bad`, all rows are read and then
    refused together if one of them is bad.
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
            self.entries.append(self._entry(problem, _digest(row), split, where))
            if self._skip_bad or not self.skipped:
                yield row
        if self.skipped and not self._skip_bad:
            raise refusal(self.skipped, self._content.name)
        if not self.entries:
            reason = "no problems; add one row per line"
            if self.skipped:
                first = lines_of(self.skipped)[0]
                reason = f"{len(self.skipped)} rows and none that can be used; the first: {first}"
            raise UserError(f"{self._content.name} holds {reason}.")

    def stored(self, faults: Iterable[RowFault]) -> list[list[str]]:
        """The faults as JSON has them, without the name of the content."""
        return [
            [_unnamed(text, self._content) for text in dataclasses.astuple(fault)]
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
        place = _unnamed(where, self._content)
        return (problem.id, *texts, len(problem.tests), digest, split or "", place)


def _digest(row: Mapping[str, str]) -> str:
    """What tells a row from others."""
    digest = hashlib.sha256()
    for name in ROW_FIELDS:
        text = row[name].encode()
        digest.update(b"%d " % len(text))
        digest.update(text)
    return digest.hexdigest()[:16]


def _build(content: Content, folder: Path, skip_bad: bool) -> None:
    builder = CodeProblems(data_dir=folder, rows=CheckedRows(content, skip_bad))
    try:
        with _silence():
            builder.download_and_prepare()
    except OSError:
        # TFDS writes to a folder of its own and renames it; the rename fails when another process
        # was first.
        if not builder.data_path.exists():
            raise


def _unnamed(text: str, content: Content) -> str:
    return text.replace(f"{content.name} line ", f"{_CONTENT} line ")


def _named(text: str, content: Content) -> str:
    return text.replace(f"{_CONTENT} line ", f"{content.name} line ")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep TFDS's announcements and progress bars, written to both streams, off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
