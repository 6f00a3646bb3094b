"""Digests of files: right at once, remembered for large files, and never wrong for being so."""

import hashlib
import json
import os
import time

import pytest

from rlif_jax.errors import UserError
from rlif_jax.storage import digests
from rlif_jax.storage.digests import file_digest


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that counts as large and was written long ago, with a cache of its own."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "REMEMBERED_BYTES", 10)
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"0123456789")
    settle(monkeypatch, path)
    return path


def settle(monkeypatch, path):
    """Let three seconds pass since the file was last written."""
    now = path.stat().st_ctime_ns + 3 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: now)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def remembered(path):
    return list((path.parent / "cache" / "digests").glob("*.json"))


def test_large_file_is_read_once(large):
    assert file_digest(large) == sha256(b"0123456789")
    (memory,) = remembered(large)
    told = json.loads(memory.read_text())
    memory.write_text(json.dumps(told | {"sha256": "what is remembered"}))
    assert file_digest(large) == "what is remembered"


def test_edit_that_keeps_size_and_time_is_seen(large, monkeypatch):
    stat = large.stat()
    assert file_digest(large) == sha256(b"0123456789")
    time.sleep(0.05)
    large.write_bytes(b"9876543210")
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_digest(large) == sha256(b"9876543210")


def test_file_just_written_is_not_remembered(large, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("RLIF_CACHE", str(large.parent / "cache"))
    monkeypatch.setattr(digests, "REMEMBERED_BYTES", 10)
    large.write_bytes(b"9876543210")
    assert file_digest(large) == sha256(b"9876543210")
    assert not remembered(large)


def test_small_file_is_not_remembered(large, monkeypatch):
    monkeypatch.setattr(digests, "REMEMBERED_BYTES", 11)
    assert file_digest(large) == sha256(b"0123456789")
    assert not remembered(large)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"signature": 3}'])
def test_damaged_memory_is_ignored(large, content):
    file_digest(large)
    (memory,) = remembered(large)
    memory.write_bytes(content)
    assert file_digest(large) == sha256(b"0123456789")
    assert json.loads(memory.read_text())["sha256"] == sha256(b"0123456789")


def test_cache_that_cannot_be_written_is_no_obstacle(large, monkeypatch):
    monkeypatch.setenv("RLIF_CACHE", str(large))
    assert file_digest(large) == sha256(b"0123456789")


def test_folder_and_nothing_are_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path.name}: it is a folder"):
        file_digest(tmp_path)
    with pytest.raises(UserError, match=r"none\.jsonl: No such file or directory"):
        file_digest(tmp_path / "none.jsonl")
