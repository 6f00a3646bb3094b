"""Where downloads and prepared data are kept between runs."""

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
