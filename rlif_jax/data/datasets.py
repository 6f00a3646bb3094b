"""Problem sets on disk: JSONL rows, built once into ArrayRecord files by TFDS and read by index.

TensorFlow is not needed: TFDS writes and reads ArrayRecord without it.
"""

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from rlif_jax.data.rows import ROW_FIELDS, problem_from_row, read_rows
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem
from rlif_jax.user_cache import cache_folder

DATASETS: Mapping[str, Path] = {"starter": Path(__file__).parent / "starter" / "problems.jsonl"}
SPLITS = ("train", "validation")


class CodeProblems(tfds.core.GeneratorBasedBuilder):
    """LiveCodeBench rows of one JSONL file, in its order; each row also names its `split`."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, path: Path, splits: Sequence[str] = (), data_dir: Path):
        self._path = path
        self._written_splits = splits
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in ROW_FIELDS}
        return self.dataset_info_from_configs(
            description="Programming problems with tests, as LiveCodeBench rows.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # order is the pipeline's business
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self._written_splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, str]]]:
        for index, (_, row) in enumerate(read_rows(self._path)):
            if row["split"] == split:
                yield index, {name: row.get(name, "") for name in ROW_FIELDS}


class ProblemSource:
    """Random access to the problems of one split, in the order of the JSONL file."""

    def __init__(self, records: Sequence[Mapping[str, bytes]], name: str):
        self._records = records
        self._name = name

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Problem:
        record = self._records[index]
        row = {field: value.decode() for field, value in record.items()}
        return problem_from_row(row, f"{self._name} record {index}")


def problem_source(name: str, split: str) -> ProblemSource:
    """Open a split of a problem set: a name in `DATASETS`, or the path of a .jsonl file of rows.

    The first use checks every row and builds the ArrayRecord files under `cache_folder()`, in a
    folder named after the SHA-256 of the JSONL file, so an edited file is built anew. Any number of
    processes may do so at once.

    Raises UserError for an unknown name or split, a bad row, a repeated id, or a cache that cannot
    be written.
    """
    path = _path_of(name)
    folder = cache_folder() / "datasets" / f"{path.stem}-{_digest(path)[:16]}"
    try:
        builder = _built(path, folder)
    except (OSError, RuntimeError) as error:  # ArrayRecord reports a full disk as RuntimeError
        raise UserError(
            f"Cannot keep the problem set {name!r} in {folder}: {error}. Free some space, or point "
            "the environment variable RLIF_CACHE to a folder that can be written."
        ) from error
    if split not in builder.info.splits:
        raise UserError(
            f"The problem set {name!r} has no split {split!r}, only "
            f"{', '.join(builder.info.splits)}."
        )
    return ProblemSource(builder.as_data_source(split), f"{name}/{split}")


def _path_of(name: str) -> Path:
    if name in DATASETS:
        return DATASETS[name]
    if not name.endswith(".jsonl"):
        raise UserError(
            f"Unknown problem set {name!r}. Known: {', '.join(DATASETS)}; or give the path of a "
            ".jsonl file of LiveCodeBench rows."
        )
    return Path(name)


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"Cannot read the problems in {path}: {error.strerror}. Check the path and its "
            "permissions."
        ) from error


def _built(path: Path, folder: Path) -> CodeProblems:
    """The builder of `path` with its files in `folder`; OSError or RuntimeError if it cannot be."""
    builder = CodeProblems(path=path, data_dir=folder)
    if builder.data_path.exists():
        return builder
    builder = CodeProblems(path=path, splits=_checked_splits(path), data_dir=folder)
    try:
        with _silence():
            builder.download_and_prepare()
    except OSError:
        # TFDS writes to a folder of its own and renames it; the rename fails when another process
        # was first.
        if not builder.data_path.exists():
            raise
    return CodeProblems(path=path, data_dir=folder)


def _checked_splits(path: Path) -> list[str]:
    """The splits named in the file, after a check of every row, so that no run meets a bad one."""
    places: dict[str, str] = {}
    splits = set()
    for where, row in read_rows(path):
        problem = problem_from_row(row, where)
        if row.get("split") not in SPLITS:
            raise UserError(
                f"{where} (question_id {problem.id!r}): field split is {row.get('split')!r}; set "
                f"it to {' or '.join(repr(s) for s in SPLITS)}, which keeps the problems that are "
                "trained on apart from those that measure progress."
            )
        if problem.id in places:
            raise UserError(
                f"{where}: question_id {problem.id!r} was already used at {places[problem.id]}; "
                "give each problem an id of its own."
            )
        places[problem.id] = where
        splits.add(row["split"])
    if not splits:
        raise UserError(f"{path} holds no problems; add one row per line.")
    return [split for split in SPLITS if split in splits]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep TFDS's announcements and progress bars, written to both streams, off the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
