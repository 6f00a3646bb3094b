"""What XLA compiled, kept between starts of a command in the user's cache folder.

https://docs.jax.dev/en/latest/persistent_compilation_cache.html. Commands turn it on; the library
itself leaves JAX's settings alone.
"""

import hashlib
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from rlif_jax.storage.user_cache import cache_folder

LARGEST_BYTES = 2 * 2**30
"""JAX removes the entries that were not used for longest beyond this size."""
UNBOUNDED = -1  # JAX's default
PROCESSOR_FIELDS = (
    *("vendor_id", "cpu family", "model", "model name", "flags"),  # x86
    *("CPU implementer", "CPU part", "CPU variant", "Features"),  # Arm
)


def keep_compiled(note: Callable[[str], None] = print) -> None:
    """Have JAX keep what takes it a second or more to compile, and load it in later processes.

    It respects what the user has set in JAX_COMPILATION_CACHE_DIR, JAX_COMPILATION_CACHE_MAX_SIZE,
    JAX_ENABLE_COMPILATION_CACHE=false, or in `jax.config`. Where the folder cannot be written,
    `note` is told and everything is compiled anew.
    """
    settings: Any = jax.config  # whose fields are made at run time
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return
    folder = compiled_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            _remove_unfinished(folder)
    except OSError as error:
        note(f"compiled stages are not kept: {error}. Set RLIF_CACHE to a folder you may write to")
        return
    settings.update("jax_compilation_cache_dir", str(folder))
    if settings.jax_compilation_cache_max_size == UNBOUNDED:
        settings.update("jax_compilation_cache_max_size", LARGEST_BYTES)


def compiled_folder(cpuinfo: Path = Path("/proc/cpuinfo")) -> Path:
    """The folder for machines with this one's processor, as Linux describes it in `cpuinfo`.

    Code that XLA compiled for a processor with AVX-512 kills the process on one without, and
    machines with different processors may share a home folder. Not every version of JAX has the
    processor in its keys.
    """
    try:
        described = cpuinfo.read_text().split("\n\n")[0]
    except OSError:  # not Linux
        described = platform.processor()
    fields = (line.partition(":") for line in described.splitlines())
    lasting = sorted(
        " ".join(sorted(value.split()))
        for name, _, value in fields
        if name.strip() in PROCESSOR_FIELDS
    )
    digest = hashlib.sha256("\n".join(lasting or [described]).encode()).hexdigest()
    return cache_folder() / "xla" / f"{platform.machine()}-{digest[:12]}"


def _remove_unfinished(folder: Path) -> None:
    """Remove the entries that a killed process left unfinished.

    JAX writes KEY-cache and then KEY-atime. An entry without the second would never be read whole
    nor replaced, and JAX's search for the oldest entry fails at it.
    """
    for entry in folder.glob("*-cache"):
        if not entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists():
            entry.unlink(missing_ok=True)
