"""Model folders in storage buckets, and the one function that opens a folder of either kind."""

import hashlib
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import tensorstore as ts

from rlif_jax.errors import UserError
from rlif_jax.storage.files import Files, LocalFiles, extent, inside, pieces
from rlif_jax.storage.user_cache import cache_folder

FETCHED_BYTES = 64 << 20  # of a bucket's object in one request
IN_FLIGHT = 4  # requests for one block
PROBES = 32  # requests at once in the search for an object's size
END_BYTES = 1 << 18  # of an object, read at once where that search ends


class BucketFiles(Files):
    """A folder of a Google Cloud Storage bucket, `gs://BUCKET/PATH`, by tensorstore's gcs driver.

    Credentials are found as tensorstore finds them (GOOGLE_APPLICATION_CREDENTIALS, gcloud's
    application default credentials, the machine's service account); with none, requests are
    anonymous, which is enough for a public bucket. TENSORSTORE_GCS_HTTP_URL names another server.

    Requests are of whole rows: of a block that is a part of the columns, the rest travels as well
    and is dropped. So on a mesh that splits columns (fsdp) each process fetches whole rows of its
    tensors, and many hosts together fetch the model many times over; for them an Orbax folder,
    whose parts are read alone, or a local copy is better. `bytes_fetched` counts what travelled of
    the objects, but for the single bytes that tell an object's size; `bytes_read` what was kept.
    """

    def __init__(self, location: str):
        super().__init__(location)
        bucket, _, path = location.removeprefix("gs://").partition("/")
        spec = {"driver": "gcs", "bucket": bucket, "path": f"{path.strip('/')}/".lstrip("/")}
        quick = {"max_retries": 3, "initial_delay": "200ms", "max_delay": "1s"}
        try:
            self._store = ts.KvStore.open(spec).result()  # retries for minutes, as a pod needs
            self._look = ts.KvStore.open(
                spec | {"context": {"gcs_request_retries": quick}}
            ).result()
        except ValueError as error:
            raise UserError(
                f"{location!r} is not a place in a bucket ({_first_line(error)}); write "
                "gs://BUCKET/PATH"
            ) from error
        self.bytes_fetched = 0
        self._names: frozenset[str] | None = None
        self._sizes: dict[str, int] = {}

    def names(self) -> frozenset[str]:
        if self._names is None:
            self._names = self._list()
        return self._names

    def _list(self) -> frozenset[str]:
        keys = [key.decode() for key in self._result(self._look.list())]
        if not keys:
            # tensorstore lists nothing where the server answers 401, 403 or 404; a read tells why.
            self._result(self._look.read("config.json", byte_range=slice(0, 1)))
        shown = [key for key in keys if not key.startswith(".") and not key.endswith("/")]
        return frozenset(key for key in shown if key.count("/") <= 1)

    def size(self, name: str) -> int:
        """Bytes in an object, found by reading single bytes: tensorstore does not tell it."""
        if name not in self._sizes:
            self._sizes[name] = self._search_size(name)
        return self._sizes[name]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None:
            return self.block(name, start, 1, stop - start).tobytes()
        data = self._fetch(name, start, None)()
        self._count(len(data))
        return data

    def local_copy(self, names: Iterable[str]) -> Path:
        """A folder of the user's cache named after the location and after what the files hold.

        So a folder never changes once it has its name, and processes may fetch it at once.
        """
        contents = {name: self.read(inside(name, self.location)) for name in sorted(names)}
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        key = f"{PurePosixPath(self.location).name}-{_sha256(self.location)[:16]}"
        target = cache_folder() / "gs" / key / digest.hexdigest()[:16]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
                for name, content in contents.items():
                    path = Path(folder, "files", name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                if not target.exists():
                    _rename_folder(Path(folder, "files"), target)
        except OSError as error:
            raise UserError(
                f"cannot store files of {self.location} in {target}: {error}; set RLIF_CACHE to a "
                "folder that can be written and has room"
            ) from error
        return target

    def _fill(self, block: np.ndarray, name: str, start: int, row_bytes: int) -> None:
        running = deque()
        for rows, columns in pieces(block.shape, row_bytes, FETCHED_BYTES):
            into = block[rows, columns]
            at = start + rows.start * row_bytes + columns.start
            running.append((into, self._fetch(name, at, at + extent(into.shape, row_bytes))))
            if len(running) == IN_FLIGHT:
                _cut(*running.popleft(), row_bytes)
        for into, fetch in running:
            _cut(into, fetch, row_bytes)

    def _fetch(self, name: str, start: int, stop: int | None) -> Callable[[], bytes]:
        """Begin to read bytes [start, stop) of an object; the call of what is returned waits."""
        future = self._store.read(inside(name, self.location), byte_range=slice(start, stop))

        def wait() -> bytes:
            try:
                result = self._result(future)
            except _OutOfRangeError as error:
                raise self._damaged(name, stop or start) from error
            if result.state != "value":
                raise self._missing(name)
            with self._counting:
                self.bytes_fetched += len(result.value)
            return result.value

        return wait

    def _search_size(self, name: str) -> int:
        """The first offset that has no byte, by rounds of probes that draw its bounds closer."""
        held = sum(self._holds(name, [4**power for power in range(23)]))  # up to 16 TiB
        low, high = 4**held // 4, 4**held
        while high - low > END_BYTES:
            step = -(-(high - low) // (PROBES + 1))
            offsets = [low, *range(low + step, high, step), high]
            held = sum(self._holds(name, offsets[1:-1]))
            low, high = offsets[held], offsets[held + 1]
        return low + len(self._fetch(name, low, None)())

    def _holds(self, name: str, offsets: list[int]) -> list[bool]:
        """Whether an object has a byte at each of the offsets."""
        waits = [self._store.read(name, byte_range=slice(at, at + 1)) for at in offsets]
        found = []
        for future in waits:
            try:
                found.append(self._result(future).state == "value")
            except _OutOfRangeError:
                found.append(False)
        return found

    def _result(self, future: ts.Future):
        """What a request of tensorstore gave, its failure as a UserError."""
        try:
            return future.result()
        except ValueError as error:
            if str(error).startswith("OUT_OF_RANGE"):
                raise _OutOfRangeError(_first_line(error)) from error
            raise UserError(_bucket_message(self.location, error)) from error


class _OutOfRangeError(Exception):
    """A range that an object does not have."""


def open_files(location: str | Path) -> Files:
    """The files of a local folder or of `gs://BUCKET/PATH`, which hold something and can be read.

    Raises UserError naming the location and the remedy where they do not or cannot.
    """
    text = str(location)
    if text.startswith("gs://"):
        files = BucketFiles(text)
        if not files.names():
            raise UserError(
                f"there is nothing at {text}, neither bucket nor folder that you may list; check "
                f"it with `gcloud storage ls {text}`"
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


def _cut(into: np.ndarray, fetch: Callable[[], bytes], row_bytes: int) -> None:
    """Copy a piece out of the bytes that reach over it."""
    fetched = np.frombuffer(fetch(), np.uint8)
    into[...] = np.lib.stride_tricks.as_strided(fetched, into.shape, (row_bytes, 1))


def _rename_folder(folder: Path, target: Path) -> None:
    try:
        os.replace(folder, target)
    except OSError:
        if not target.is_dir():  # otherwise another process put the same files there first
            raise


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    """An error of tensorstore without the reply's body, which repeats it."""
    return re.sub(r"\s*\[http_response_body=.*?'\]", "", str(error).splitlines()[0])


def _bucket_message(location: str, error: ValueError) -> str:
    """The sentence for a request that a bucket refused or that did not reach it."""
    reason = _first_line(error)
    if reason.startswith(("PERMISSION_DENIED", "UNAUTHENTICATED")):
        remedy = (
            "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_"
            "CREDENTIALS to the key file of an account with the role Storage Object Viewer there"
        )
    else:
        remedy = "check the network and the credentials, then run again"
    return (
        f"cannot read {location} ({reason}); {remedy}; or copy it with `gcloud storage cp -r "
        f"{location} FOLDER` and give that folder"
    )
