"""Whose a run folder is: one run's at a time, and one folder for all processes of it."""

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator

from rlif_jax.distributed import by_first, gathered, is_first, process_count, process_index
from rlif_jax.errors import UserError
from rlif_jax.run.disk import disk_errors
from rlif_jax.storage.folder import Folder, in_bucket

_LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Make the folder, and keep other runs out of it until the block ends, however it ends.

    The first process holds the lock; the operating system takes it back when that process is gone.
    A bucket has no locks: of two runs that record there one is refused at its next record (see
    `storage.appended.BucketObject`).

    Raises:
        UserError: another run is in the folder, or it cannot be written.
    """
    if in_bucket(folder):
        yield
        return
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            stack.callback(os.close, _lock(folder))

        by_first(lock)
        yield


def in_use(folder: Folder) -> bool | None:
    """Whether a run is in the folder now; None where this machine cannot tell, as of a bucket's.

    The kernel is asked for its list of locks: taking the lock to try it could refuse a run. It does
    not know those of other machines, which the lock names.
    """
    if in_bucket(folder):
        return None
    try:
        inode = os.stat(folder / _LOCK).st_ino
    except OSError:
        return False
    try:
        with open("/proc/locks") as locks:
            if any("FLOCK" in line and f":{inode} " in line for line in locks):
                return True
        with open(folder / _LOCK, encoding="utf-8", errors="replace") as lock:
            holder = lock.read().split()
    except OSError:
        return None
    return False if not holder or holder[-1] == socket.gethostname() else None


def _lock(folder: Folder) -> int:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(fd, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(fd)
        raise UserError(
            f"{folder} is in use: {holder} trains in it. Wait for that run, stop it, or choose "
            "another folder with --run-dir."
        ) from error
    except OSError:  # a file system without locks
        return fd
    with disk_errors(folder):
        os.ftruncate(fd, 0)
        os.write(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return fd


def check_shared(folder: Folder) -> None:
    """Refuse a folder that some process does not share with the first one. Raises UserError.

    A bucket is the same for all of them.
    """
    if in_bucket(folder) or process_count() == 1:
        return
    probe = by_first(lambda: _probe(folder))
    hosts = gathered((probe.exists(), f"process {process_index()} on {socket.gethostname()}"))
    if is_first():
        probe.unlink(missing_ok=True)
    if lacking := [host for seen, host in hosts if not seen]:
        raise UserError(
            f"{folder} is another folder for {', '.join(lacking)} than for process 0: all "
            "processes of a run need one folder. Give --run-dir=gs://BUCKET/PATH or a folder on a "
            "shared file system."
        )


def _probe(folder: Folder) -> Folder:
    probe = folder / f".shared-{secrets.token_hex(8)}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    return probe
