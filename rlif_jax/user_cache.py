"""Where downloads and prepared data are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$RLIF_CACHE, or ~/.cache/rlif_jax; it may not exist yet."""
    return Path(os.environ.get("RLIF_CACHE") or "~/.cache/rlif_jax").expanduser()
