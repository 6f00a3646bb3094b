"""How many processors this process may use: its CPU affinity and its container's CPU quota."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows control groups: of version 2 here or in `unified`, of version 1 in `cpu`."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The control groups of this process: a line `number:controllers:path` for each hierarchy."""


def own_processors() -> int:
    """Processors that this process may use, at least 1.

    A quota of 1.5 processors counts as 2: one of them is then idle for part of the time.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux only; training without a judge runs elsewhere too
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = min(_quotas(), default=math.inf)
    return count if quota >= count else max(1, math.ceil(quota))


def _quotas() -> Iterator[float]:
    """CPU quotas, in processors, of this process's control groups and of those around them.

    Inside a container the path may be the host's, of which only the container's own part is
    mounted; its own group is then the root of what is mounted.
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            roots = (CGROUPS, CGROUPS / "unified")
        elif "cpu" in controllers.split(","):
            roots = (CGROUPS / "cpu",)
        else:
            continue
        group = Path(path.strip("/"))
        for root in roots:
            for folder in (group, *group.parents):
                yield from _quota(root / folder)


def _quota(folder: Path) -> Iterator[float]:
    """The quota of one control group, where it has one: CPU time over the period it is for."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in files).split()
        except (OSError, ValueError):  # no such file in this version or at the root
            continue
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
