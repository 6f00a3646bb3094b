"""The C library, for what Python's own modules do not call. Standard library only."""

import ctypes
import functools
import os
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 22, 36, 38


@functools.cache
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    """Return `result`; raise OSError with the C library's errno when it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> None:
    checked(libc().prctl(option, value, 0, 0, 0), f"prctl({option})")


def drop_capabilities() -> None:
    """Lose every capability, for this process and what it starts."""
    header = struct.pack("Ii", 0x20080522, 0)
    checked(libc().capset(header, struct.pack("6I", *[0] * 6)), "capset")
