"""The machine that was measured: the device, the versions, how memory is taken."""

import importlib.metadata
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from rlif_jax.run.provenance import git_revision, versions

_PACKAGES = re.compile(r"jaxlib|libtpu|jax-cuda\d+-(plugin|pjrt)|nvidia-(cudnn|cublas|nccl)-cu\d+")

FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""What names the share of a GPU's memory that JAX takes; the second name is the older one."""


def machine() -> dict[str, Any]:
    """Facts for the JSON file and the head of the table."""
    device = jax.local_devices()[0]
    installed = {
        name: one.version
        for one in importlib.metadata.distributions()
        if (name := one.metadata["Name"] or "") and _PACKAGES.fullmatch(name)
    }
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.local_device_count(),
        "processor": processor(),
        "system": platform.platform(),
        "versions": {**versions(), **dict(sorted(installed.items()))},
        "runtime": " ".join(device.client.platform_version.split()),
        "revision": git_revision(),
        "memory": memory(device.platform, device.memory_stats() or {}),
    }


def processor() -> str:
    """The host's processor and the number of those that this process may use."""
    path, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if path.exists() and (found := re.search(r"model name\s*:\s*(.*)", path.read_text())):
        name = found[1]
    return f"{name}, {len(os.sched_getaffinity(0))} in use"


def memory(kind: str, stats: dict[str, int], environment: Any = None) -> dict[str, Any]:
    """How much of the device's memory JAX may take, and the variables that decide it on a GPU."""
    environment = os.environ if environment is None else environment
    limit = stats.get("bytes_limit")
    facts: dict[str, Any] = {"gib_limit": None if limit is None else round(limit / 2**30, 2)}
    if kind != "gpu":
        return facts
    set_to = [environment[name] for name in FRACTIONS if environment.get(name)]
    wanted = environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    return facts | {
        "fraction": float(set_to[0]) if set_to else 0.75,
        "preallocated": wanted not in ("false", "False", "0"),
        "allocator": environment.get("XLA_PYTHON_CLIENT_ALLOCATOR", "default"),
    }


def memory_line(facts: dict[str, Any]) -> str:
    """The facts of `memory` as a sentence, with what to set."""
    limit = facts["gib_limit"]
    told = "the device does not say how much memory it has" if limit is None else f"{limit} GiB"
    if "fraction" not in facts:
        return f"memory that JAX may take: {told}"
    taken = "taken at the start" if facts["preallocated"] else "taken as needed"
    return (
        f"memory that JAX may take: {told}, a share of {facts['fraction']:g} "
        f"(XLA_CLIENT_MEM_FRACTION), {taken} (XLA_PYTHON_CLIENT_PREALLOCATE), by the "
        f"{facts['allocator']} allocator (XLA_PYTHON_CLIENT_ALLOCATOR)"
    )
