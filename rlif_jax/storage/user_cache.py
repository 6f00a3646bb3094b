"""Where downloads and prepared data are kept between runs."""

import contextlib
import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """$RLIF_CACHE, or ~/.cache/rlif_jax; it may not exist yet."""
    return Path(os.environ.get("RLIF_CACHE") or "~/.cache/rlif_jax").expanduser()


def keep_in_cache(path: Path, content: bytes) -> None:
    """Write a file of the cache in one step; several processes may. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        Path(folder, path.name).write_bytes(content)
        os.replace(Path(folder, path.name), path)


def arrived(folder: Path) -> int:
    """Bytes on disk of the files in a folder in which others make, fill, rename and remove some."""
    total = 0
    for parent, _, names in os.walk(folder):  # it skips a folder that is gone
        for name in names:
            with contextlib.suppress(OSError):
                stat = os.stat(os.path.join(parent, name))
                total += min(stat.st_size, 512 * stat.st_blocks)  # it may have holes
    return total
