"""The C library, for what Python's own modules do not call. Standard library only."""

import ctypes
import functools
import os
import struct

SIGINT, SIGKILL, SIGCHLD, SIGSTOP = 2, 9, 17, 19  # `signal` is large, and each fork pays for it
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_STACK, RLIMIT_CORE = 0, 1, 3, 4
RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_AS, RLIM_INFINITY = 6, 7, 9, (1 << 64) - 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 22, 36, 38


_CALLS = ctypes.PyDLL(None)
# For processes without threads, where each page that is touched counts. They leave errno unread,
# and are looked up before there are forks that would do it again.
wait4, umount2, mount_now = _CALLS.wait4, _CALLS.umount2, _CALLS.mount


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


def mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    data = None if options is None else options.encode()
    result = libc().mount(*encoded, ctypes.c_ulong(flags), data)
    checked(result, f"mount {kind or source or ''} at {target}")


def keep_capabilities(numbers: tuple[int, ...]) -> None:
    """Lose every capability but these, for this process and what it starts."""
    header = struct.pack("Ii", 0x20080522, 0)
    halves = [sum(1 << n % 32 for n in numbers if n // 32 == half) for half in range(2)]
    data = struct.pack("6I", *[v for half in halves for v in (half, half, 0)])
    checked(libc().capset(header, data), "capset")


def limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit of this process, `hard` where that is another, as far as it may be set."""
    old, new = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 2)()
    checked(libc().prlimit(0, kind, None, old), "prlimit")
    new[:] = [min(value, old[1]) for value in (soft, soft if hard is None else hard)]
    checked(libc().prlimit(0, kind, new, None), "prlimit")
