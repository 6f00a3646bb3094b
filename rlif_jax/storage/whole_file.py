"""Files replaced in one step: readers see the old content or the new, never a part."""

import contextlib
import os
from pathlib import Path

from rlif_jax.storage.folder import Folder, in_bucket


def write_whole(path: Folder, data: bytes) -> None:
    """Replace a file by way of NAME.tmp beside it, an object of a bucket by one upload.

    For files with one writer at a time. Raises OSError, which leaves the old content; for an object
    also what the clients of buckets raise (`folder.from_bucket`).
    """
    if in_bucket(path):
        path.write_bytes(data)
        return
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
