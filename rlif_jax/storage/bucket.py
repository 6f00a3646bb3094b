"""Folders in storage buckets, and the one function that opens a model folder of either kind."""

import hashlib
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorstore as ts

from rlif_jax.errors import UserError
from rlif_jax.storage.files import MODEL_REMEDY, Files, LocalFiles, extent, inside, pieces
from rlif_jax.storage.user_cache import cache_folder

FETCHED_BYTES = 64 << 20  # of an object, in one request
IN_FLIGHT = 4  # requests for one block

Fetch = Callable[[], ts.KvStore.ReadResult]
"""A request on its way; the call waits for its result."""


class BucketFiles(Files):
    """A folder of a Google Cloud Storage bucket, `gs://BUCKET/PATH`, by tensorstore's gcs driver.

    It reads models and problems; run folders in buckets are written by `storage/folder.py`.
    Credentials are found as tensorstore finds them (GOOGLE_APPLICATION_CREDENTIALS, gcloud's
    application default credentials, the machine's service account); without any, requests are
    anonymous, which is enough for a public bucket. TENSORSTORE_GCS_HTTP_URL names another server.

    Requests are of whole rows: for a block that is a part of the columns, the other columns are
    fetched as well and dropped. So on a mesh that splits columns (fsdp) each process fetches whole
    rows of its tensors, and many hosts together fetch the model many times over; an Orbax folder,
    whose parts are read alone, or a local copy suits them better. `bytes_fetched` counts the bytes
    of objects that were fetched, `bytes_read` those that were kept.
    """

    def __init__(self, location: str, remedy: str = MODEL_REMEDY):
        super().__init__(location, remedy)
        bucket, _, path = location.removeprefix("gs://").partition("/")
        spec = {"driver": "gcs", "bucket": bucket, "path": f"{path.strip('/')}/".lstrip("/")}
        quick = {"max_retries": 3, "initial_delay": "200ms", "max_delay": "1s"}
        try:
            self._store = ts.KvStore.open(spec).result()  # retries for minutes: pods start slowly
            self._look = ts.KvStore.open(
                spec | {"context": {"gcs_request_retries": quick}}
            ).result()
        except ValueError as error:
            raise UserError(
                f"{location!r} is not a place in a bucket ({first_line(error)}); write "
                "gs://BUCKET/PATH"
            ) from error
        self.bytes_fetched = 0
        self._names: frozenset[str] | None = None

    def names(self) -> frozenset[str]:
        if self._names is None:
            self._names = self._list()
        return self._names

    def _list(self) -> frozenset[str]:
        keys = [key.decode() for key in self._result(self._look.list())]
        if not keys:
            # tensorstore lists nothing where the server answers 401, 403 or 404; a read tells why.
            self._result(self._look.read("config.json", byte_range=slice(0, 1)))
        visible = [key for key in keys if not key.startswith(".") and not key.endswith("/")]
        return frozenset(key for key in visible if key.count("/") <= 1)

    def has_byte(self, name: str, offset: int) -> bool:
        try:
            self._fetch(name, offset, offset + 1)()
        except _CutShortError:
            return False
        return True

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None:
            return self.block(name, start, 1, stop - start).tobytes()
        data = self._fetch(name, start, None)().value
        self._count(len(data))
        return data

    def local_copy(self, names: Iterable[str]) -> Path:
        """A folder of the user's cache, named after the location and the objects' generations.

        So it is fetched once, and again when an object was overwritten; a folder never changes once
        it has its name, and processes may fetch it at once.
        """
        names = sorted(names)
        target = self._copy({name: self._generation(name) for name in names})
        if target.is_dir():
            return target
        found = {name: self._fetch(name, 0, None)() for name in names}
        target = self._copy({name: result.stamp.generation for name, result in found.items()})
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
                for name, result in found.items():
                    path = Path(folder, "files", name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(result.value)
                if not target.exists():
                    _rename_folder(Path(folder, "files"), target)
        except OSError as error:
            raise UserError(
                f"cannot store {', '.join(names)} of {self.location} in {target}: {error}; set "
                "RLIF_CACHE to a folder that can be written and has room"
            ) from error
        return target

    def _copy(self, generations: Mapping[str, bytes]) -> Path:
        location = self.location.rstrip("/")
        key = f"{PurePosixPath(location).name}-{_sha256(location)}"
        return cache_folder() / "gs" / key / _sha256(repr(sorted(generations.items())))

    def _generation(self, name: str) -> bytes:
        """The generation of an object, which changes when it is overwritten."""
        # Of an empty range tensorstore asks for the object's metadata alone.
        found = self._result(
            self._look.read(inside(name, self.location), byte_range=slice(0, 0)), name
        )
        if found.state != "value":
            raise self._missing(name)
        return found.stamp.generation

    def _fill(self, block: np.ndarray, name: str, start: int, row_bytes: int) -> None:
        running: deque[tuple[np.ndarray, Fetch]] = deque()
        for rows, columns in pieces(block.shape, row_bytes, FETCHED_BYTES):
            into = block[rows, columns]
            at = start + rows.start * row_bytes + columns.start
            running.append((into, self._fetch(name, at, at + extent(into.shape, row_bytes))))
            if len(running) == IN_FLIGHT:
                into, fetch = running.popleft()
                _cut(into, fetch, row_bytes)
        for into, fetch in running:
            _cut(into, fetch, row_bytes)

    def _fetch(self, name: str, start: int, stop: int | None) -> Fetch:
        """Begin to read bytes [start, stop) of an object; the function returned waits for them."""
        future = self._store.read(inside(name, self.location), byte_range=slice(start, stop))

        def wait() -> ts.KvStore.ReadResult:
            result = self._result(future, name, stop or start)
            if result.state != "value":
                raise self._missing(name)
            with self._counting:
                self.bytes_fetched += len(result.value)
            return result

        return wait

    def _result(self, future: Any, name: str = "", stop: int = 0) -> Any:
        """The result of a tensorstore request; UserError for a request that failed.

        _CutShortError where the object `name` ends before byte `stop`.
        """
        try:
            return future.result()
        except ValueError as error:
            if str(error).startswith("OUT_OF_RANGE"):
                raise _CutShortError(str(self._damaged(name, stop))) from error
            place = f"{name} in {self.location}" if name else self.location
            raise UserError(_bucket_message(place, self.location, error)) from error


class _CutShortError(UserError):
    """An object ends before the range that was asked for."""


def open_files(location: str | Path) -> Files:
    """The files of a local folder or of `gs://BUCKET/PATH`.

    Raises UserError, naming the location and the remedy, for a place that is empty or unreadable.
    """
    text = str(location)
    if text.startswith("gs://"):
        files = BucketFiles(text)
        if not files.names():
            raise UserError(
                f"there is nothing at {text}, neither a bucket nor a folder that you may list; "
                f"check it with `gcloud storage ls {text}`"
            )
        return files
    if "://" in text:
        raise UserError(f"{text} is neither a local folder nor gs://BUCKET/PATH; copy it to one")
    folder = Path(text).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"model folder {text} {what}; give the path of a folder with config.json")
    files = LocalFiles(folder)
    if not files.names():
        raise UserError(f"model folder {text} is empty; put the model's files there")
    return files


def _cut(into: np.ndarray, fetch: Fetch, row_bytes: int) -> None:
    """Copy a piece out of the bytes from its first to its last."""
    fetched = np.frombuffer(fetch().value, np.uint8)
    into[...] = np.lib.stride_tricks.as_strided(fetched, into.shape, (row_bytes, 1))


def _rename_folder(folder: Path, target: Path) -> None:
    try:
        os.replace(folder, target)
    except OSError:
        if not target.is_dir():  # otherwise another process put the same files there first
            raise


def _sha256(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_line(error: BaseException) -> str:
    """An error of tensorstore without the reply's body, which repeats it."""
    return re.sub(r"\s*\[http_response_body=.*?'\]", "", str(error).splitlines()[0])


def _bucket_message(place: str, location: str, error: ValueError) -> str:
    """The message for a request that a bucket refused or that did not reach it."""
    reason = first_line(error)
    if reason.startswith(("PERMISSION_DENIED", "UNAUTHENTICATED")):
        remedy = (
            "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_"
            "CREDENTIALS to the key file of an account with the role Storage Object Viewer there"
        )
    else:
        remedy = "check the network and the credentials, then run again"
    return (
        f"cannot read {place} ({reason}); {remedy}; or copy the folder with `gcloud storage cp -r "
        f"{location} FOLDER` and give that folder"
    )
