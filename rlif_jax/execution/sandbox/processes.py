"""What the processes of a candidate use, as /proc tells. Standard library only.

Called in a fork of the loader, which is not counted itself.
"""

import contextlib
import os
import resource

PROCESSES = 64  # of a candidate
PAGE_BYTES = resource.getpagesize()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SOCKET_BYTES = 2 * 106496  # what the kernel may hold for a socket; for a pipe it is less
WITHIN, TOO_MUCH_CPU, TOO_MUCH_MEMORY, TOO_MANY_PROCESSES = range(4)


def excess(memory_bytes: int, cpu_s: float) -> int:
    """Say what all processes of the candidate together have too much of, or WITHIN.

    RLIMIT_NPROC does not bind root and may count a user's other processes; RLIMIT_AS and RLIMIT_CPU
    count each process alone, the former with room for the stacks of threads, and neither what the
    kernel holds in sockets and pipes. A fork shares most of its memory with the loader, which is
    not counted.
    """
    used = descendants(os.getppid())
    if sum(used_s for used_s, _ in used.values()) > cpu_s:
        return TOO_MUCH_CPU
    living = [pid for pid, (_, lives) in used.items() if lives]
    if len(living) > PROCESSES:
        return TOO_MANY_PROCESSES
    shared = resident("self")
    held = sum(max(0, resident(pid) - shared) for pid in living)
    if held + SOCKET_BYTES * len(set().union(*map(buffers, living))) > memory_bytes:
        return TOO_MUCH_MEMORY
    return WITHIN


def used_below(pid: int) -> float:
    """Return the CPU seconds of all processes of the candidate but the own ones of `pid`."""
    used_s = sum(cpu_s for cpu_s, _ in descendants(os.getppid()).values())
    with open(f"/proc/{pid}/stat", "rb") as file:
        used_s -= sum(map(int, file.read().rpartition(b")")[2].split()[11:13])) / TICKS_PER_S
    return used_s


def descendants(above: int) -> dict[int, tuple[float, bool]]:
    """Return the processes below one, this one left out.

    Of each: its CPU seconds with those of the children it has waited for, and whether it lives.
    """
    children: dict[int, list[int]] = {}
    found: dict[int, tuple[float, bool]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
                used_s = sum(map(int, fields[11:15])) / TICKS_PER_S
                found[int(entry)] = used_s, fields[0] not in b"ZX"
    below: dict[int, tuple[float, bool]] = {}
    todo = [above]
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in below]
        below |= {pid: found[pid] for pid in new}
        todo += new
    return below


def resident(pid: int | str) -> int:
    """Return the bytes of a process in memory, 0 when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES
    return 0


def buffers(pid: int) -> set[str]:
    """Return names of the sockets and pipes that a process has open, where it may be looked at."""
    folder, names = f"/proc/{pid}/fd", set()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                names.add(os.readlink(f"{folder}/{name}"))
    return {name for name in names if name.startswith(("socket:", "pipe:"))}


def living_below(above: int) -> set[int]:
    """Return the processes below one that have not ended."""
    return {pid for pid, (_, lives) in descendants(above).items() if lives}
