"""What a host is, and what a process has and leaves on it: processes, memory, files, mounts."""

import contextlib
import datetime
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

SYSV = ("shm", "sem", "msg")


def machine() -> dict[str, object]:
    """What figures depend on beside the code: processor, vector unit, Python, kernel, the day."""
    lines = (line.partition(":") for line in _lines("cpuinfo"))
    about = {name.strip(): value.strip() for name, _, value in lines}
    avx = [f for f in about.get("flags", "").split() if re.fullmatch(r"avx2?|avx512f", f)]
    return {
        "processor": about.get("model name", platform.machine()),
        "avx": max(avx, key=("avx", "avx2", "avx512f").index, default="none"),
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def descendants(root: int) -> set[int]:
    """The processes below `root`, those included that ended and were not collected."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = set()
    new = {root}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def resident_kib(pid: int) -> int:
    """Resident memory in KiB, pages shared with other processes included; 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def belongings(root: int, folder: Path, marks: Iterable[str]) -> dict[str, set[str]]:
    """What there is of each sort, by name, so that two states can be compared.

    `root` is the process whose descendants count, but for this one. Files are all below `folder`,
    and those in places open to everybody whose names begin with one of `marks`.
    """
    everywhere = {Path(p) for p in ("/tmp", "/var/tmp", "/run", "/", Path.home())}
    marked = [path for place in everywhere for mark in marks for path in place.glob(f"{mark}*")]
    sysv = [f"{kind} {line.split()[1]}" for kind in SYSV for line in _lines(f"sysvipc/{kind}")[1:]]
    return {
        "processes": {str(pid) for pid in descendants(root) - {os.getpid()}},
        "descriptors": _descriptors(),
        "files in the temporary and the current folder": set(map(str, folder.rglob("*"))),
        "files elsewhere": set(map(str, marked)),
        "shared memory": {*sysv, *(str(path) for path in Path("/dev/shm").glob("*"))},
        "mounts": set(_lines("self/mounts")),
    }


def _lines(name: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):  # a kernel without System V IPC
        return Path("/proc", name).read_text().splitlines()
    return []


def _descriptors() -> set[str]:
    """Open descriptors of this process; the one that lists them is closed by then."""
    fds = os.listdir("/proc/self/fd")
    return {fd for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}")}
