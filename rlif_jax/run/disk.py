"""Writes that a disk or a bucket refuses, as people see them."""

import contextlib
import errno
from collections.abc import Iterator

from rlif_jax.errors import UserError
from rlif_jax.storage.folder import Folder, from_bucket, in_bucket, refused


@contextlib.contextmanager
def disk_errors(path: Folder) -> Iterator[None]:
    """Turn an OSError, or a bucket's refusal, into a `UserError` with the path and what to do."""
    what = f"{path} could not be written"
    then = "What was recorded before is intact: run the same command to resume."
    try:
        yield
    except Exception as error:
        if in_bucket(path) and (isinstance(error, OSError) or from_bucket(error)):
            raise refused(path, error, what, then) from error
        if not isinstance(error, OSError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space" if full else "Make the folder writable"
        raise UserError(
            f"{what}: {error.strerror or error}. {remedy}, or choose another folder with "
            f"--run-dir. {then}"
        ) from error
