"""What a candidate program may read of this machine's files. Standard library only."""

import os
import sys

DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))


def readable_paths() -> list[str]:
    """Return the paths that a Python program needs to read, none inside another."""
    library = os.path.dirname(os.__file__)
    places = [library, os.path.realpath(library), "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    places += [os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")]
    places += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    places += ["/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"]
    chosen: list[str] = []
    for place in sorted({os.path.normpath(p) for p in places if p}):
        inside = any(place.startswith(other + "/") for other in chosen)
        if os.path.isabs(place) and os.path.exists(place) and not inside:
            chosen.append(place)
    return chosen


def package_folders(places: list[str]) -> list[str]:
    """Return the folders of installed packages inside `places`, which may hold data sets."""
    found = []
    for place in places:
        for level in (place, *(os.path.join(place, name) for name in _listed(place))):
            if os.path.islink(level) and level != place:
                continue
            found += [
                os.path.join(level, name)
                for name in ("site-packages", "dist-packages")
                if os.path.isdir(os.path.join(level, name))
            ]
    return found


def split_at(place: str, hidden: list[str]) -> tuple[list[str], list[str]]:
    """Return the folders above `hidden` ones inside `place`, and everything else in it."""
    if not any(folder.startswith(place + "/") for folder in hidden):
        return [], [place]
    passed, kept = [place], []
    for name in os.listdir(place):
        inner = os.path.join(place, name)
        if inner not in hidden:
            more, rest = split_at(inner, hidden)
            passed += more
            kept += rest
    return passed, kept


def _listed(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return [name for name in os.listdir(folder) if name.startswith("python")]


def open_path(path: str) -> int:
    """Open a path (O_PATH), so that it can be bind-mounted after a mount covers it."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)
