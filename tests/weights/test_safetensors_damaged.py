"""Every way to damage a safetensors file: it is refused, and nothing outside it is read."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from support.safetensors_files import ONE, headers, random_tensors, raw

from rlif_jax.errors import UserError
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.safetensors import WHOLE, stored_tensors


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = save(random_tensors(np.dtype(np.float32)))
    for size in range(len(whole)):
        with pytest.raises(
            UserError, match=r"model\.safetensors in .* is damaged or was cut short"
        ):
            headers(tmp_path, whole[:size])
    with pytest.raises(UserError, match=f"end at byte {len(whole)}, and the file does not"):
        headers(tmp_path, whole + b"\0")
    assert len(headers(tmp_path, whole)) == 4


@given(data=st.data())
def test_damaged_headers_are_refused_or_describe_tensors_within_the_file(tmp_path_factory, data):
    """Bytes changed anywhere before the data: never another exception, never a byte outside."""
    tensors = random_tensors(np.dtype(np.float32))
    whole = bytearray(save(tensors))
    end = len(whole) - sum(value.nbytes for value in tensors.values())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp()
    try:
        found = headers(folder, bytes(whole))
    except UserError as error:
        assert "fetch it again" in str(error) and "\n" not in str(error)
        return
    for tensor in found.values():
        assert tensor.file == WHOLE and end <= tensor.offset <= len(whole)
        if tensor.kind in ("F32", "F16", "BF16"):
            size = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
            assert tensor.offset + size <= len(whole)


def entry(**changed) -> dict:
    return {"a": ONE | changed}


HUGE = 10**30
DAMAGED = {
    "gap before": entry(data_offsets=[4, 8]),
    "gap between": {"a": ONE, "b": ONE | {"data_offsets": [8, 12]}},
    "overlap": {"a": ONE | {"shape": [2], "data_offsets": [0, 8]}, "b": ONE},
    "same bytes twice": {"a": ONE, "b": ONE},
    "backwards": entry(data_offsets=[4, 0]),
    "one offset": entry(data_offsets=[0]),
    "three offsets": entry(data_offsets=[0, 4, 8]),
    "no offsets": {"a": {"dtype": "F32", "shape": [1]}},
    "negative offset": entry(data_offsets=[-4, 0]),
    "offset that is true": entry(shape=[0], data_offsets=[0, True]),
    "offset of no whole number": entry(data_offsets=[0.0, 4.0]),
    "offset beyond the file": entry(data_offsets=[0, 4096]),
    "huge offset": entry(data_offsets=[0, HUGE]),
    "shape too large": entry(shape=[2]),
    "shape too small": entry(shape=[]) | {"b": ONE | {"data_offsets": [4, 12]}},
    "two negative sizes": entry(shape=[-1, -1]),
    "size that is true": entry(shape=[True]),
    "size of no whole number": entry(shape=[1.0]),
    "size that is a string": entry(shape=["1"]),
    "size that is not a number": entry(shape=[float("nan")]),
    "huge sizes": entry(shape=[HUGE] * 1000),
    "zero times huge": entry(shape=[0, HUGE], data_offsets=[0, 0]),
    "sizes of so many digits": raw(b'{"a": {"dtype": "F32", "shape": [1%s]}}' % (b"0" * 5000)),
    "shape that is a number": entry(shape=1),
    "shape that is null": entry(shape=None),
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 4]}},
    "no dtype": {"a": {"shape": [1], "data_offsets": [0, 4]}},
    "bytes that do not divide": entry(data_offsets=[0, 3]),
    "entry that is a list": {"a": [1]},
    "entry that is null": {"a": None},
    "header that is a list": [1],
    "header that is a string": "a",
    "header that is null": None,
    "header of nothing": b"",
    "header of no JSON": b"{'a': 1}",
    "a name twice": b'{"a": %s, "a": %s}' % ((json.dumps(ONE).encode(),) * 2),
    "a field twice": b'{"a": {"shape": [2], %s}' % json.dumps(ONE).encode()[1:],
    "deep nesting": b'{"a":' * 50_000,
    "deep lists": b'{"a":' + b"[" * 50_000,
    "not UTF-8": b'{"\xff": %s}' % json.dumps(ONE).encode(),
    "a name of many lines": {"\n" * 10_000: ONE | {"shape": [2]}},
    "UTF-16": json.dumps(entry()).encode("utf-16"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_header_that_does_not_describe_its_file_is_refused(tmp_path, name):
    header = DAMAGED[name]
    content = header if name == "sizes of so many digits" else raw(header, b"\0" * 4)
    with pytest.raises(UserError, match="is damaged or was cut short") as error:
        headers(tmp_path, content)
    message = str(error.value)
    assert "fetch it again" in message and "\n" not in message and len(message) < 500


@pytest.mark.parametrize("length", [5, 1000, 2**31, 2**63, 2**64 - 1])
def test_a_header_length_beyond_the_file_is_refused(tmp_path, length):
    content = struct.pack("<Q", length) + b"{} "
    with pytest.raises(UserError, match=f"its header says it is {length} bytes long"):
        headers(tmp_path, content)


def test_a_header_longer_than_the_library_takes_is_not_read(tmp_path):
    with (tmp_path / WHOLE).open("wb") as out:
        out.write(struct.pack("<Q", 200_000_000))
        out.truncate(300_000_000)  # sparse
    files = LocalFiles(tmp_path)
    with pytest.raises(UserError, match="200000000 bytes long"):
        stored_tensors(files)
    assert files.bytes_read == 8
    with pytest.raises(SafetensorError):
        safe_open(tmp_path / WHOLE, "numpy")
