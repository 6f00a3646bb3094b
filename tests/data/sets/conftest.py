"""What tests of stored sets share."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rows(make_row) -> list[dict]:
    """Ten rows, in an order that is not that of their ids; every third one is held out."""
    names = [None, "add"]
    splits = ["validation", "train", "train"]
    return [
        make_row(f"p{7 * i % 10}", func_name=names[i % 2], question_content=f"é\u2028{i}")
        | {"split": splits[i % 3]}
        for i in range(10)
    ]
