"""The tensors of safetensors files: their places, checked before any is read, and their writing.

A file is the length of its header (8 bytes, little-endian), a JSON header that gives each tensor's
type, shape and byte range, and the bytes (https://github.com/huggingface/safetensors#format). Read
and written here rather than by the library, because a process reads only the part of a tensor that
its devices hold, from buckets, too, and writes a file without holding all of it in memory.
"""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from rlif_jax.errors import UserError, shown
from rlif_jax.storage.files import Files

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"

DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST_HEADER = 100_000_000  # the library's own limit


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: the file, the byte in it where the data starts, the stored type, the shape."""

    file: str
    offset: int
    kind: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The NumPy type; `kind` must be one of `DTYPES`."""
        return DTYPES[self.kind]


def stored_tensors(files: Files) -> dict[str, StoredTensor]:
    """Every tensor of a model folder by name, from the headers of its files alone.

    Raises:
        UserError: no weights, a shard missing, a header that is damaged or does not fit its file,
            a tensor in two shards, or an index that disagrees with the shards.
    """
    present = files.names()
    if WHOLE in present:
        return _header(files, WHOLE)
    if INDEX not in present:
        raise UserError(_no_weights(files, present))
    where = _index(files)
    missing = sorted(set(where.values()) - present)
    if missing:
        raise UserError(
            f"model folder {files.location} lacks {', '.join(map(shown, missing[:4]))}, which "
            f"{INDEX} names; fetch the missing files"
        )
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(where.values())):
        for name, tensor in _header(files, shard).items():
            if where.get(name) != shard:
                raise UserError(
                    f"{INDEX} in {files.location} puts tensor {shown(name)} in "
                    f"{shown(where.get(name))}, but {shard} holds it; index and shards are not of "
                    "one checkpoint: fetch them again"
                )
            tensors[name] = tensor
    if lost := sorted(where.keys() - tensors.keys()):
        raise UserError(
            f"{INDEX} in {files.location} names tensor {shown(lost[0])} in {where[lost[0]]}, which "
            "does not hold it; index and shards are not of one checkpoint: fetch them again"
        )
    return tensors


def _no_weights(files: Files, present: Iterable[str]) -> str:
    message = f"model folder {files.location} has neither {WHOLE} nor {INDEX}"
    if "adapter_model.safetensors" in present:
        return f"{message}, but a LoRA adapter; merge it into its base model first (PEFT's merge)"
    if any(name.endswith((".bin", ".pth", ".pt")) for name in present):
        return f"{message}, but PyTorch pickles; save the model again as safetensors"
    if any(name.endswith(".safetensors") for name in present):
        return f"{message}, but other .safetensors files; fetch {INDEX}, or rename the only file"
    return f"{message}; give the folder that holds the weights"


def _index(files: Files) -> dict[str, str]:
    try:
        where = json.loads(files.read(INDEX).decode())["weight_map"]
        if not all(isinstance(shard, str) for shard in where.values()) or not where:
            raise ValueError("weight_map is empty or names no files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{INDEX} in {files.location} cannot be read ({type(error).__name__}: {error}); fetch "
            "it again"
        ) from error
    return where


def _header(files: Files, name: str) -> dict[str, StoredTensor]:
    """The tensors of one file, each checked to lie within it and none over another."""

    def damaged(why: str) -> UserError:
        return UserError(
            f"{name} in {files.location} is damaged or was cut short: {why}; fetch it again"
        )

    length = struct.unpack("<Q", files.read(name, 0, 8))[0]
    if length > _LONGEST_HEADER or not files.has_byte(name, 7 + length):
        raise damaged(f"its header says it is {length} bytes long, and the file is shorter")
    try:
        text = files.read(name, 8, 8 + length).decode()  # UTF-8 alone, as the library reads it
        header = json.loads(text, object_pairs_hook=_unique)
        header.pop("__metadata__", None)
        entries = [(key, *_entry(value)) for key, value in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"its header cannot be read ({type(error).__name__}: {error})") from error
    tensors, end = {}, 0
    for key, kind, shape, start, stop in sorted(entries, key=lambda entry: entry[3:]):
        if start != end or stop < start:
            raise damaged(f"tensor {shown(key)} starts at byte {start}, not at {end}")
        if kind in DTYPES and math.prod(shape) * DTYPES[kind].itemsize != stop - start:
            what = f"tensor {shown(key)}, {kind} {shown(list(shape))}"
            raise damaged(f"{what}, has {stop - start} bytes")
        tensors[key] = StoredTensor(name, 8 + length + start, kind, shape)
        end = stop
    end += 8 + length
    if not files.has_byte(name, end - 1) or files.has_byte(name, end):
        raise damaged(f"its tensors end at byte {end}, and the file does not")
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated names."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _entry(value: Mapping[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    """(kind, shape, start, stop) of a header's entry; raises ValueError for an invalid one."""
    kind, shape, (start, stop) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    if not all(type(n) is int and 0 <= n < 2**62 for n in (*shape, start, stop)):
        raise ValueError("an invalid shape or range")
    return str(kind), shape, start, stop


def read_block(files: Files, tensor: StoredTensor, rows: slice, columns: slice) -> np.ndarray:
    """Part of a matrix (or of a vector: a matrix of one column) in its stored type, [r, c]."""
    width = math.prod(tensor.shape[1:]) * tensor.dtype.itemsize
    size = tensor.dtype.itemsize
    block = files.block(
        tensor.file,
        tensor.offset,
        tensor.shape[0],
        width,
        rows,
        slice(columns.start * size, columns.stop * size),
    )
    return block.view(tensor.dtype)


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: its name, shape and type; its values are read when it is written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def shard(tensors: Iterable[NewTensor], limit: int) -> dict[str, list[NewTensor]]:
    """Tensors in files of at most `limit` bytes each, by Hugging Face's file names, in order.

    A tensor larger than the limit fills one file.
    """
    groups: list[list[NewTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.size
    if len(groups) == 1:
        return {WHOLE: groups[0]}
    total = len(groups)
    return {f"model-{i:05d}-of-{total:05d}.safetensors": g for i, g in enumerate(groups, 1)}


def write_index(folder: Path, shards: Mapping[str, list[NewTensor]]) -> None:
    """The index file that a checkpoint in several files needs."""
    where = {tensor.name: name for name, group in shards.items() for tensor in group}
    total = sum(tensor.size for group in shards.values() for tensor in group)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_file(out: BinaryIO, tensors: list[NewTensor], values: Iterator[np.ndarray]) -> None:
    """One safetensors file; `values` gives each tensor's array when its turn comes.

    The header is padded with spaces so that the data starts at a multiple of eight bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(struct.pack("<Q", len(text)) + text)
    for tensor, value in zip(tensors, values, strict=True):
        if value.shape != tensor.shape or value.dtype != tensor.dtype:
            raise ValueError(f"{tensor} was given {value.dtype} {value.shape}")
        out.write(np.ascontiguousarray(value).view(np.uint8).data)
