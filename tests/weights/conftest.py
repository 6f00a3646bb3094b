"""Model folders that several files change."""

from pathlib import Path

import pytest
from support.family_folders import family_folder


@pytest.fixture
def untied(tmp_path) -> Path:
    """llama-default: one file, 51 rows, 50 ids."""
    return family_folder("llama-default", tmp_path / "model")
