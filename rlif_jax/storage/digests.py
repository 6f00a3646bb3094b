"""SHA-256 of files; those of large files are remembered, since problem sets have gigabytes."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from rlif_jax.errors import UserError
from rlif_jax.storage.user_cache import cache_folder, keep_in_cache

REMEMBERED_BYTES = 64 << 20
"""Digests of files from this size on are remembered; smaller files are quickly read again."""
_SETTLED_NS = 2 * 10**9  # a file may change twice within one tick of its file system's clock


def signature(path: Path) -> list[int]:
    """Numbers that change whenever a file is written to or replaced.

    Raises UserError when there is no file at `path`, or when it cannot be read.
    """
    try:
        if path.is_dir():
            raise UserError(f"Cannot read the problems in {path}: it is a folder; name a file.")
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; UserError when it cannot be read."""
    before = signature(path)
    size = before[2]
    settled = time.time_ns() - max(before[3:]) > _SETTLED_NS
    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    memory = cache_folder() / "digests" / f"{key}.json"
    if size >= REMEMBERED_BYTES:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            remembered = json.loads(memory.read_bytes())
            if remembered["signature"] == before:
                return remembered["sha256"]
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error
    if size >= REMEMBERED_BYTES and settled and signature(path) == before:
        with contextlib.suppress(OSError):  # the digest is right without it
            keep_in_cache(memory, json.dumps({"signature": before, "sha256": digest}).encode())
    return digest


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot read the problems in {path}: {error.strerror}. Check the path and its permissions."
    )
