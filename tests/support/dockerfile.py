"""A Dockerfile read and built in a folder, for machines without a docker daemon.

A base image is a fresh virtual environment. A path in the image is a path below the build's folder.
COPY copies, and RUN runs in the image's working folder, so no RUN line may name an absolute path.
The user stays the same, and useradd is a stand-in.
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from support.stand_ins import StandIns


@dataclass
class Stage:
    name: str
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile with their instructions, ARGs replaced by their defaults."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    found: dict[str, Stage] = {}
    defaults: dict[str, str] = {}
    stage = None
    for line in filter(str.strip, joined.splitlines()):
        word, rest = line.split(None, 1)
        for name, value in defaults.items():
            rest = rest.replace(f"${{{name}}}", value)
        if word == "ARG":
            name, _, value = rest.partition("=")
            defaults[name] = value
        elif word == "FROM":
            base, _, name = rest.split()
            stage = found[name] = Stage(name, base)
        else:
            assert stage is not None, f"{line} comes before FROM"
            stage.lines.append((word, rest))
    return found


class Build:
    """The images of a Dockerfile, each a folder; build a target with `build`."""

    def __init__(self, dockerfile: Path, context: Path, folder: Path):
        self._stages = stages(dockerfile.read_text())
        self._context, self._folder = context, folder
        ignore = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text().split()
        self._sent = [line[1:] for line in ignore if line.startswith("!")]
        self._others: dict[str, Image] = {}

    def build(self, target: str) -> "Image":
        """Build a stage, after the stage that it stands on, in one folder."""
        stage = self._stages[target]
        on_another = stage.base in self._stages
        image = self.build(stage.base) if on_another else Image.fresh(self._folder / target)
        for word, rest in stage.lines:
            if word == "WORKDIR":
                image.cwd = rest
                image.path(".").mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self._copy(image, rest.split())
            elif word == "RUN":
                image.run(rest)
            elif word == "ENV":
                name, _, value = rest.partition("=")
                image.environment[name] = value
            elif word == "USER":
                image.user = rest
            else:
                assert word == "CMD", f"{word} is not understood here"
        return image

    def _copy(self, image: "Image", words: list[str]) -> None:
        *sources, target = [word for word in words if not word.startswith("--from=")]
        (other,) = [w.removeprefix("--from=") for w in words if w.startswith("--from=")] or [""]
        into = image.path(target)
        for source in sources:
            if other:
                if other not in self._others:
                    self._others[other] = self.build(other)
                path = self._others[other].path(source)
            else:
                top = source.split("/")[0]
                assert any(fnmatch.fnmatch(top, sent) for sent in self._sent), (
                    f"{source} is not sent"
                )
                path = self._context / source
            if path.is_dir():
                shutil.copytree(path, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                if target.endswith("/"):
                    into.mkdir(exist_ok=True)
                shutil.copy(path, into)


class Image:
    """A folder in the place of a container's root."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.environment = folder, environment
        self.cwd, self.user = "/", "root"

    @classmethod
    def fresh(cls, folder: Path) -> "Image":
        (folder / "root").mkdir(parents=True)
        base = Path(sys.base_prefix) / "bin" / Path(sys.executable).resolve().name
        subprocess.run([base, "-m", "venv", folder / "venv"], check=True)
        stand_ins = StandIns(folder)
        stand_ins.add("useradd")
        path = f"{folder / 'venv/bin'}:{stand_ins.environment['PATH']}"
        kept = {k: os.environ[k] for k in os.environ if k.startswith(("PIP_", "SSL_", "UV_"))}
        return cls(folder / "root", kept | {"PATH": path, "HOME": str(folder)})

    def path(self, path: str) -> Path:
        return self.folder / os.path.normpath(os.path.join(self.cwd, path)).lstrip("/")

    def run(self, command: str, timeout_s: float = 1500) -> subprocess.CompletedProcess[str]:
        """Run a command in the working folder; raises CalledProcessError with its output."""
        absolute = re.findall(r"(?<![\w./])/\w[\w./]*", command)
        assert absolute == [], f"RUN {command} names {absolute}, which is not in the image here"
        ran = subprocess.run(
            ["sh", "-c", command],
            cwd=self.path("."),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        return ran
