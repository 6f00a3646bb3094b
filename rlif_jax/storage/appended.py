"""Files that grow by whole records, local or in a bucket; what was written stays."""

import os
from pathlib import Path
from typing import Any, Protocol

import tensorstore as ts

from rlif_jax.errors import UserError
from rlif_jax.storage.bucket import first_line
from rlif_jax.storage.folder import Folder, in_bucket
from rlif_jax.storage.jsonl import append_whole


class Appended(Protocol):
    """A file that is open for appending."""

    def append(self, data: bytes) -> None:
        """Append all of the data, which is stored when this returns, or nothing.

        Raises OSError, and `UserError` where another process has written to an object since.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def appended(path: Folder) -> Appended:
    """Open a file for appending, new or not. Raises OSError."""
    return BucketObject(str(path)) if in_bucket(path) else LocalFile(Path(path))


class LocalFile:
    """A file of this machine; see `Appended`."""

    def __init__(self, path: Path):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def append(self, data: bytes) -> None:
        """See `Appended`."""
        append_whole(self._fd, data, sync=True)

    def close(self) -> None:
        """See `Appended`."""
        os.close(self._fd)


class BucketObject:
    """An object of a bucket; see `Appended`.

    Objects cannot grow: each append sends the whole object, which replaces the one before only if
    nobody else has replaced that one. So of two processes that append to one object one is refused.
    """

    def __init__(self, location: str):
        self._location = location
        bucket, _, self._key = location.removeprefix("gs://").partition("/")
        retries = {"max_retries": 6, "initial_delay": "1s", "max_delay": "32s"}
        context = {"gcs_request_retries": retries}
        spec = {"driver": "gcs", "bucket": bucket, "context": context}
        self._store = self._result(ts.KvStore.open(spec))
        self._content, self._generation = self._read()

    def append(self, data: bytes) -> None:
        """See `Appended`."""
        content = self._content + data
        written = self._store.write(self._key, content, if_equal=self._generation)
        generation = self._result(written).generation
        if not generation:  # it had another generation, that of a repeated request of ours perhaps
            found, generation = self._read()
            if found != content:
                raise UserError(
                    f"{self._location} is not as this process left it: another run writes into "
                    "the same folder. This one stops, and its checkpoints are kept. Stop the other "
                    "one before you resume, or choose another folder with --run-dir."
                )
        self._content, self._generation = content, generation

    def close(self) -> None:
        """See `Appended`."""

    def _read(self) -> tuple[bytes, bytes]:
        """(content, generation); without an object both stand for that."""
        found = self._result(self._store.read(self._key))
        return (found.value if found.state == "value" else b""), found.stamp.generation

    def _result(self, future: Any) -> Any:
        try:
            return future.result()
        except ValueError as error:  # tensorstore's for whatever fails
            raise OSError(first_line(error)) from error
