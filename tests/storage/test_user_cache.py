"""Where things are kept, and how much of them has arrived."""

import os
from pathlib import Path

from rlif_jax.storage.user_cache import arrived, cache_folder


def test_the_variable_moves_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RLIF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "rlif_jax"


def test_a_folder_that_is_removed_meanwhile_counts_for_nothing(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    (tmp_path / "here").write_bytes(b"12345")
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert arrived(tmp_path) == 5
