"""The files of a folder, read by byte ranges: on this machine here, in a bucket in `bucket`."""

import abc
import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from rlif_jax.errors import UserError

MODEL_REMEDY = "fetch the whole model folder again, or check what the folder's index says"
MAPPED_BYTES = 32 << 20  # of a local file mapped at once: mapped pages count as resident memory


class Files(abc.ABC):
    """A folder. Names are relative to it, with slashes; hidden files are not listed.

    `bytes_read` counts the bytes that `read` and `block` gave to their callers. All methods may be
    called from several threads. A missing name or range raises UserError; for a missing file it
    ends in `remedy`.
    """

    def __init__(self, location: str, remedy: str = MODEL_REMEDY):
        self.location, self.remedy = location, remedy
        self.bytes_read = 0
        self._counting = threading.Lock()

    @abc.abstractmethod
    def names(self) -> frozenset[str]:
        """The files of the folder and of the folders in it."""

    @abc.abstractmethod
    def has_byte(self, name: str, offset: int) -> bool:
        """Whether a file is longer than `offset` bytes."""

    @abc.abstractmethod
    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of a file, to its end without a stop."""

    def block(
        self,
        name: str,
        offset: int,
        rows: int,
        row_bytes: int,
        row_slice: slice = slice(None),
        byte_slice: slice = slice(None),
    ) -> np.ndarray:
        """uint8 [r, c]: a block of the row-major matrix of bytes that starts at `offset` of a file.

        The matrix has `rows` rows of `row_bytes` bytes; the block is the rows of `row_slice` and
        of each the bytes of `byte_slice`, both without a step. Little more than that is read.
        """
        first_row, last_row, _ = row_slice.indices(rows)
        first, last, _ = byte_slice.indices(row_bytes)
        block = np.empty((max(0, last_row - first_row), max(0, last - first)), np.uint8)
        if block.size:
            self._fill(block, name, offset + first_row * row_bytes + first, row_bytes)
        self._count(block.size)
        return block

    @abc.abstractmethod
    def local_copy(self, names: Iterable[str]) -> Path:
        """A folder of this machine that holds these files, which should be small."""

    @abc.abstractmethod
    def _fill(self, block: np.ndarray, name: str, start: int, row_bytes: int) -> None:
        """Read into block [r, c] the rows that lie `row_bytes` apart from `start` of a file."""

    def _count(self, count: int) -> None:
        with self._counting:
            self.bytes_read += count

    def _damaged(self, name: str, stop: int) -> UserError:
        return UserError(
            f"{name} in {self.location} is damaged or was cut short: it ends before byte {stop}; "
            "fetch it again"
        )

    def _missing(self, name: str) -> UserError:
        return UserError(f"{self.location} has no file {name}; {self.remedy}")


class LocalFiles(Files):
    """A folder of this machine's file system."""

    def __init__(self, folder: str | Path):
        super().__init__(str(folder))
        self._folder = Path(folder).expanduser()

    def names(self) -> frozenset[str]:
        try:
            found = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise self._refused(error) from error
        for folder in [path for path in found if path.is_dir()]:
            with contextlib.suppress(OSError):  # one that only others may read holds no model
                found += folder.iterdir()
        files = [path for path in found if path.is_file()]
        return frozenset(path.relative_to(self._folder).as_posix() for path in files)

    def has_byte(self, name: str, offset: int) -> bool:
        try:
            return offset < self._path(name).stat().st_size
        except OSError as error:
            raise self._refused(error) from error

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        try:
            with self._path(name).open("rb") as file:
                file.seek(start)
                data = file.read(-1 if stop is None else stop - start)
        except OSError as error:
            raise self._refused(error) from error
        if stop is not None and len(data) < stop - start:
            raise self._damaged(name, stop)
        self._count(len(data))
        return data

    def local_copy(self, names: Iterable[str]) -> Path:
        return self._folder

    def _fill(self, block: np.ndarray, name: str, start: int, row_bytes: int) -> None:
        if not self.has_byte(name, (stop := start + extent(block.shape, row_bytes)) - 1):
            raise self._damaged(name, stop)
        path = self._path(name)
        for rows, columns in pieces(block.shape, row_bytes, MAPPED_BYTES):
            into = block[rows, columns]
            at = start + rows.start * row_bytes + columns.start
            try:
                mapped = np.memmap(path, np.uint8, "r", at, extent(into.shape, row_bytes))
            except OSError as error:
                raise self._refused(error) from error
            into[...] = np.lib.stride_tricks.as_strided(mapped, into.shape, (row_bytes, 1))
            del mapped  # the last reference: this unmaps it

    def _path(self, name: str) -> Path:
        path = self._folder / inside(name, self.location)
        if not path.is_file():
            raise self._missing(name)
        return path

    def _refused(self, error: OSError) -> UserError:
        return UserError(
            f"cannot read the model folder {self.location}: {error}; give the path of a folder "
            "with config.json and *.safetensors that you may read"
        )


def pieces(shape: tuple[int, int], row_bytes: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """(rows, columns) of the parts of a block [r, c], each within `limit` bytes of the file."""
    rows, width = shape
    together, broad = max(1, limit // row_bytes), min(width, limit)
    for row in range(0, rows, together):
        for column in range(0, width, broad):
            yield (
                slice(row, min(rows, row + together)),
                slice(column, min(width, column + broad)),
            )


def extent(shape: tuple[int, int], row_bytes: int) -> int:
    """Bytes of a file from the first byte of a block to its last."""
    return (shape[0] - 1) * row_bytes + shape[1]


def inside(name: str, location: str) -> str:
    """The name of a file, checked not to lead out of its folder as a hostile index's may."""
    if not name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise UserError(f"{location}: {name!r} is not the name of a file in that folder")
    return name
