"""Landlock, which closes the file system to this process and its forks. Standard library only.

Used without namespaces, which hide files altogether. Source: landlock(7).
"""

import contextlib
import ctypes
import os
import struct

from rlif_jax.execution.sandbox.libc import checked, libc
from rlif_jax.execution.sandbox.paths import (
    DEVICES,
    open_path,
    package_folders,
    readable_paths,
    split_at,
)

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same on every architecture
# Access rights by the version of the interface that brought them, landlock(7).
_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_READ_DIR = 1 << 3
_READ = 1 << 2 | _READ_DIR  # with READ_FILE
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15


def close_file_system(writable: str, packages: list[str]) -> str:
    """Leave this process and its forks only `writable` and the files that Python reads.

    Returns "", or why the kernel cannot do that. Needs no_new_privs.
    """
    call = libc().syscall
    version = call(_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return f"no Landlock: {os.strerror(ctypes.get_errno())}"
    every = sum(rights for since, rights in _RIGHTS.items() if since <= version)
    places = readable_paths()
    rules = {place: _READ for place in ("/proc", *packages)}
    for place in places:
        passed, kept = split_at(place, package_folders(places))
        rules |= {folder: _READ_DIR for folder in passed} | {path: _READ for path in kept}
    rules |= {device: _READ | 1 << 1 for device in DEVICES}
    rules[writable] = every
    try:
        ruleset = checked(call(_CREATE, struct.pack("Q", every), ctypes.c_size_t(8), 0), "landlock")
        for place, rights in rules.items():
            with contextlib.suppress(FileNotFoundError, PermissionError):  # unreadable anyway
                below = open_path(place)
                if not os.path.isdir(place):
                    rights &= _FILE_RIGHTS
                rule = struct.pack("=Qi", rights & every, below)
                result = call(_ADD, ruleset, 1, rule, 0)
                os.close(below)
                checked(result, f"landlock_add_rule({place})")
        checked(call(_RESTRICT, ruleset, 0), "landlock_restrict_self")
        os.close(ruleset)
    except OSError as error:
        return str(error)
    return ""
