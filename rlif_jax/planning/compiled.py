"""A stage compiled once for a slice: its memory and its text, kept in the user's cache folder."""

import contextlib
import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

from jax.stages import Lowered

from rlif_jax.planning.ahead import ExceedsMemory, Memory, compile_with_text, memory_of
from rlif_jax.planning.chips import Slice
from rlif_jax.storage.user_cache import cache_folder, keep_in_cache

_PACKAGES = ("jax", "jaxlib", "libtpu")


@dataclass(frozen=True)
class CompiledStage:
    """What XLA made of a stage; `text` is its optimised HLO, one device's share."""

    memory: Memory
    text: str


@dataclass(frozen=True)
class TooLarge:
    """A stage that XLA refused to compile: it needs more memory than a chip has.

    `largest` are the largest buffers: GiB, shape, and the operation that makes it.
    """

    needed_gib: float
    largest: tuple[tuple[float, str, str], ...]


def compile_stage(lowered: Lowered, slice_: Slice) -> CompiledStage | TooLarge:
    """Compile a stage for a slice, or read what an earlier call made of the same stage.

    What is compiled depends on the lowered text, the slice and the versions of JAX and its
    compilers, which name the file in the cache.
    """
    path = cache_folder() / "plans" / f"{digest(lowered, slice_)}.json.gz"
    if (known := _read(path)) is not None:
        return known
    try:
        compiled, text = compile_with_text(lowered)
    except ExceedsMemory as refusal:
        refused = TooLarge(refusal.needed_gib, tuple(refusal.largest))
        _keep(path, refused)
        return refused
    made = CompiledStage(memory_of(compiled), text)
    _keep(path, made)
    return made


def digest(lowered: Lowered, slice_: Slice) -> str:
    """Names all that decides what is compiled."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    named = json.dumps([slice_.name, versions])
    return hashlib.sha256(f"{named}\n{lowered.as_text()}".encode()).hexdigest()[:32]


def _read(path: Path) -> CompiledStage | TooLarge | None:
    try:
        kept = json.loads(gzip.decompress(path.read_bytes()))
        if "memory" in kept:
            return CompiledStage(**kept | {"memory": Memory(**kept["memory"])})
        largest = tuple((gib, shape, name) for gib, shape, name in kept["largest"])
        return TooLarge(**kept | {"largest": largest})
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: it is made again


def _keep(path: Path, made: CompiledStage | TooLarge) -> None:
    with contextlib.suppress(OSError):  # a full disk costs the next plan its time
        keep_in_cache(path, gzip.compress(json.dumps(dataclasses.asdict(made)).encode(), 5))
