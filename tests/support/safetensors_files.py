"""safetensors files of given headers, and tensors to write."""

import json
import struct
from pathlib import Path

import numpy as np

from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.safetensors import WHOLE, StoredTensor, stored_tensors

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def random_tensors(dtype: np.dtype, seed: int = 0) -> dict[str, np.ndarray]:
    """Matrices and vectors of every bit pattern, NaN and infinities among them."""
    rng = np.random.default_rng(seed)
    shapes = {"b.weight": (5, 3), "a.bias": (7,), "ä ☃": (1, 1), "c": (2, 64)}
    return {
        name: rng.integers(0, 256, np.prod(shape) * dtype.itemsize, np.uint8)
        .view(dtype)
        .reshape(shape)
        for name, shape in shapes.items()
    }


def raw(header: object, data: bytes = b"") -> bytes:
    """A file of this header, JSON or bytes as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def headers(folder: Path, content: bytes) -> dict[str, StoredTensor]:
    (folder / WHOLE).write_bytes(content)
    return stored_tensors(LocalFiles(folder))
