"""Which configuration, code and versions made a run folder, and whether they may resume in it."""

import dataclasses
import importlib.metadata
import json
import platform
import posixpath
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import rlif_jax
from rlif_jax.config import Config
from rlif_jax.config.validate import type_problems
from rlif_jax.errors import UserError
from rlif_jax.kernels.precision import products_of
from rlif_jax.storage.folder import Folder, bucket_errors, in_bucket, is_folder
from rlif_jax.weights.source import OpenModel

MAY_CHANGE = (
    *("steps", "resume", "run_dir", "name", "compile_cache"),
    *("checkpoint", "failures", "profile", "log", "execution.workers"),
    *("mesh", "processes", "model.remat"),
)
"""Config fields and sections that a resumed run may change: none alters the numbers of a step, but
for the rounding of sums that `mesh` splits and of what `model.remat` computes again."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested sections by their dotted names."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def resolved(config: Any) -> dict[str, Any]:
    """The config as JSON would give it back: tuples are lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def check_same_config(folder: Folder, config: Any) -> None:
    """Refuse to resume in a run folder that another configuration has used.

    A folder is used when it has a config.json and metrics or checkpoints. The fields in
    `MAY_CHANGE` may differ. A field that config.json lacks, as an older version wrote it, counts as
    its default. Raises `UserError` naming every other field that differs as a dotted name with both
    values, and every field of config.json that this version does not have; and for a config.json
    that cannot be read.
    """
    path = folder / "config.json"
    metrics = folder / "metrics.jsonl"
    checkpoints = folder / "checkpoints"
    used = (metrics.is_file() and metrics.read_bytes()) or (
        is_folder(checkpoints) and any(checkpoints.iterdir())
    )
    if not (used and path.is_file()):
        return
    record = _record(path)
    _check_known(path, record, config)
    if differing := differing_fields(record["config"], config):
        raise UserError(
            f"{folder} holds a run with another configuration: {'; '.join(differing)}. Choose "
            "another folder with --run-dir, go back to the earlier values, or remove the folder."
        )


def recorded_config(folder: Folder) -> Config:
    """The configuration in a run folder's config.json; a field that it lacks has its default.

    Raises:
        UserError: there is no such file, it cannot be read, or it has settings that this version
            does not have.
    """
    path = folder / "config.json"
    with bucket_errors(folder):
        found = path.is_file()
    if not found:
        raise UserError(
            f"{folder} is not a run folder: it has no config.json. Give the folder that "
            "rlif_jax.train has written, runs/NAME by default."
        )
    record = _record(path)
    _check_known(path, record, Config())
    config = _filled(Config(), record["config"])
    if problems := type_problems(config):
        raise UserError(
            f"{path} holds values that this version of rlif_jax cannot take: "
            f"{'; '.join(problems)}. Use the version that made the run (revision "
            f"{record.get('revision')})."
        )
    return config


def differing_fields(before: Mapping[str, Any], config: Any) -> list[str]:
    """Fields outside `MAY_CHANGE` whose values in a config.json and in a config differ.

    Each as a phrase with its dotted name and both values.
    """
    now, defaults = flat(resolved(config)), flat(resolved(type(config)()))
    was = defaults | flat(before)
    if _start(was) == _start(now):
        was["init_from"] = now["init_from"]
    return [
        f"{name} was {was[name]!r} and is now {now[name]!r}"
        for name in sorted(now)
        if was[name] != now[name] and not may_change(name)
    ]


def _start(values: Mapping[str, Any]) -> str:
    """init_from as seen from the run folder: runs that lie beside each other may move together."""
    start = values.get("init_from", "")
    folder = values.get("run_dir") or f"runs/{values.get('name')}"
    if not start or _kind(start) != _kind(folder):
        return start
    return posixpath.relpath(start, folder)


def _kind(location: str) -> tuple[bool, bool]:
    """Paths of different kinds have no place as seen from each other."""
    return in_bucket(location), location.startswith("/")


def _record(path: Folder) -> dict[str, Any]:
    """What config.json holds. Raises UserError where it cannot be read."""
    try:
        record = json.loads(path.read_text("utf-8"))
        record["config"].items()
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error}), so nobody can tell which configuration this folder "
            "belongs to. Choose another folder with --run-dir, or remove this one."
        ) from error
    return record


def _check_known(path: Folder, record: Mapping[str, Any], config: Any) -> None:
    """Refuse a config.json with settings that `config` does not have. Raises UserError."""
    before, now = flat(record["config"]), flat(resolved(config))
    if unknown := sorted(name for name in before.keys() - now.keys() if not may_change(name)):
        values = ", ".join(f"{name}={before[name]!r}" for name in unknown)
        raise UserError(
            f"{path.parent} holds a run with settings that this version of rlif_jax does not have: "
            f"{values}. Resume it with the version that made it (revision "
            f"{record.get('revision')}), or choose another folder with --run-dir."
        )


def _filled(section: Any, values: Mapping[str, Any]) -> Any:
    """A section of a config with these values of JSON; names it does not have are left out."""
    changes = {}
    for field in dataclasses.fields(section):
        if field.name in values:
            default, value = getattr(section, field.name), values[field.name]
            inner = dataclasses.is_dataclass(default) and isinstance(value, Mapping)
            changes[field.name] = _filled(default, value) if inner else _as_tuples(value)
    return dataclasses.replace(section, **changes)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def may_change(name: str) -> bool:
    """Whether a field, by its dotted name, is one of `MAY_CHANGE` or in a section of them."""
    return any(name == free or name.startswith(f"{free}.") for free in MAY_CHANGE)


def run_facts(
    opened: OpenModel, dtype: str, mesh: Mesh, isolation: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What config.json says of a run beside its configuration.

    The devices, how candidate programs are isolated (None: they are not run), the model that was
    opened, and how precisely its products are computed.
    """
    return {
        "platform": jax.default_backend(),
        "devices": [str(device) for device in mesh.devices.flat],
        "isolation": None if isolation is None else dict(isolation),
        "model": {"source": opened.source, "revision": opened.revision},
        "precision": products_of(dtype),
    }


def git_revision(folder: Path | None = None) -> str | None:
    """The commit of the checkout with the package `folder` at its top, plus "+dirty" if modified.

    None outside a checkout, for an installed package, or without git.
    """
    package = (folder or Path(rlif_jax.__file__).parent).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        # A package installed in a virtual environment inside some checkout is not part of it.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.parent:
            return None
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "rlif_jax": rlif_jax.__version__,
        **{name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")},
    }
