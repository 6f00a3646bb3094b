"""Stand-ins for the commands of clouds and clusters, which write down how they are called."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support import ROOT

SCRIPT = """#!/usr/bin/env bash
source {launch}/bundle.sh
quoted {name} "$@" >> {calls}
{answer}
"""


class StandIns:
    """Commands that come first on PATH; `calls` are their command lines, as dry runs print them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._bin, self._calls = folder / "stand_ins", folder / "calls"
        self._bin.mkdir()
        self.environment: dict[str, str] = {
            **os.environ,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
        }

    def add(self, name: str, answer: str = "") -> None:
        """Put a command on PATH; `answer` is what it does, in bash, with its arguments in "$@"."""
        file = self._bin / name
        parts = {"launch": ROOT / "launch", "name": name, "calls": self._calls, "answer": answer}
        file.write_text(SCRIPT.format(**parts))
        file.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def forget(self) -> None:
        """Forget the calls so far."""
        self._calls.unlink(missing_ok=True)

    def run(
        self, *command: str | Path, cwd: Path, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the stand-ins on PATH, for a minute at most."""
        words = [str(word) for word in command]
        environment = self.environment | dict(more or {})
        return subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
        )


def project_copy(folder: Path) -> Path:
    """A copy of what the launchers read of the project, to build bundles in."""
    for name in ("launch", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def transcripts(name: str) -> dict[str, list[str]]:
    """By command line: what a dry run prints, from a file of tests/launch/transcripts."""
    entries: dict[str, list[str]] = {}
    for line in (ROOT / "tests/launch/transcripts" / name).read_text().splitlines():
        if line.startswith("$ "):
            entries[line.removeprefix("$ ")] = []
        elif line:
            entries[list(entries)[-1]].append(line)
    return entries
