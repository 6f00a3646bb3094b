"""Resources that a candidate's processes use, by /proc. Standard library only.

Called in a fork of the zygote, so that no loader is forked from a process that has read the figures
of another program.
"""

import contextlib
import os

PROCESSES = 64  # of a candidate
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SOCKET_BYTES = 2 * 106496  # what the kernel may hold for a socket; for a pipe it is less
FREE_DESCRIPTORS = 64  # not counted as sockets: every process has at least this many slots
LIMITS = ("", "cpu", "memory", "processes")


def exceeded_limit(proc: int, loader: int, memory_bytes: int, cpu_s: float) -> int:
    """Return the limit that all processes below a loader together exceed, as an index of LIMITS.

    RLIMIT_NPROC does not bind root and may count a user's other processes. RLIMIT_AS and RLIMIT_CPU
    count each process separately, the former with room for the stacks of threads. Neither counts
    what the kernel holds in sockets: here each descriptor counts as a full one. A fork shares most
    of its memory with the loader; that part is not counted.
    """
    used = below(proc, loader)
    if sum(seconds for seconds, _ in used.values()) > cpu_s:
        return LIMITS.index("cpu")
    living = [pid for pid, (_, lives) in used.items() if lives]
    if len(living) > PROCESSES:
        return LIMITS.index("processes")
    shared = resident(proc, loader)
    held = sum(max(0, resident(proc, pid) - shared) for pid in living)
    slots = sum(descriptor_slots(proc, pid) for pid in living)
    held += SOCKET_BYTES * max(0, slots - FREE_DESCRIPTORS)
    return LIMITS.index("memory" if held > memory_bytes else "")


def used_s(proc: int, loader: int) -> float:
    """Return the CPU seconds of all processes below a loader."""
    return sum(seconds for seconds, _ in below(proc, loader).values())


def below(proc: int, above: int) -> dict[int, tuple[float, bool]]:
    """Return the processes below one, by id.

    Each has its CPU seconds, with those of the children it has waited for, and whether it lives.
    """
    found = all_fields(proc)
    chosen, more = set(), {above}
    while more:
        chosen |= more
        more = {pid for pid, fields in found.items() if int(fields[1]) in more} - chosen
    return {
        pid: (sum(map(int, fields[11:15])) / TICKS_PER_S, fields[0] not in b"ZX")
        for pid, fields in found.items()
        if pid in chosen and pid != above
    }


def children(proc: int, above: int) -> list[int]:
    """Return the children of a process."""
    return [pid for pid, fields in all_fields(proc).items() if int(fields[1]) == above]


def all_fields(proc: int) -> dict[int, list[bytes]]:
    """Return `stat_fields` of all processes."""
    found = {}
    for name in os.listdir(proc):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found[int(name)] = stat_fields(proc, int(name))
    return found


def stat_fields(proc: int, pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on; raises OSError when it is gone."""
    return read(proc, f"{pid}/stat").rpartition(b")")[2].split()


def resident(proc: int, pid: int) -> int:
    """Return the bytes of a process in memory, 0 when it is gone."""
    with contextlib.suppress(OSError):
        return int(stat_fields(proc, pid)[21]) * PAGE_BYTES
    return 0


def descriptor_slots(proc: int, pid: int) -> int:
    """Return the size of a process's descriptor table, 0 when the process is gone."""
    with contextlib.suppress(OSError):
        for line in read(proc, f"{pid}/status").splitlines():
            if line.startswith(b"FDSize:"):
                return int(line.split()[1])
    return 0


def read(proc: int, path: str) -> bytes:
    """Return the beginning of a file of /proc; raises OSError."""
    file = os.open(path, os.O_RDONLY, dir_fd=proc)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)
