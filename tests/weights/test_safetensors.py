"""safetensors files against the library that defines them: whole files, shards, blocks."""

import io
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.safetensors_files import ONE, headers, random_tensors, raw

from rlif_jax.errors import UserError
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.safetensors import (
    INDEX,
    WHOLE,
    NewTensor,
    read_block,
    shard,
    stored_tensors,
    write_file,
    write_index,
)

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (np.dtype(np.float32), BF16, np.dtype(np.float16))


def read_all(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder as our reader gives it."""
    files = LocalFiles(folder)
    out = {}
    for name, tensor in stored_tensors(files).items():
        columns = slice(0, int(np.prod(tensor.shape[1:])))
        block = read_block(files, tensor, slice(0, tensor.shape[0]), columns)
        out[name] = block.reshape(tensor.shape)
    return out


def assert_same_bits(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape), name
        assert got[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_library_writes_is_read(tmp_path, dtype):
    want = random_tensors(dtype)
    save_file(want, tmp_path / WHOLE, metadata={"format": "pt", "note": "no tensor"})
    assert_same_bits(read_all(tmp_path), want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_library_reads_what_is_written(tmp_path, dtype):
    want = random_tensors(dtype)
    tensors = [NewTensor(name, value.shape, value.dtype) for name, value in want.items()]
    with (tmp_path / WHOLE).open("wb") as out:
        write_file(out, tensors, iter(want.values()))
    assert_same_bits(load_file(tmp_path / WHOLE), want)
    assert_same_bits(read_all(tmp_path), want)
    assert stored_tensors(LocalFiles(tmp_path))["b.weight"].offset % 8 == 0
    with safe_open(tmp_path / WHOLE, "numpy") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses files without it


def test_types_in_one_file_and_columns_that_do_not_lie_together(tmp_path):
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)
    want = {"f": wide.T, "h": wide.astype(BF16)[:, ::2], "e": wide.astype(np.float16)[0]}
    tensors = [NewTensor(name, value.shape, value.dtype) for name, value in want.items()]
    with (tmp_path / WHOLE).open("wb") as out:
        write_file(out, tensors, iter(want.values()))
    assert_same_bits(load_file(tmp_path / WHOLE), want)
    assert_same_bits(read_all(tmp_path), want)


@pytest.mark.parametrize("given", [np.zeros((2, 3), np.float32), np.zeros((3, 2), BF16)])
def test_a_value_unlike_its_declaration_is_not_written(given):
    tensor = NewTensor("a", (3, 2), np.dtype(np.float32))
    with pytest.raises(ValueError, match="was given"):
        write_file(io.BytesIO(), [tensor], iter([given]))


def test_shards(tmp_path):
    want = random_tensors(np.dtype(np.float32))
    tensors = [NewTensor(name, value.shape, value.dtype) for name, value in want.items()]
    shards = shard(tensors, 100)  # bytes: 60 + 28 fit, and so does 4 beside neither; 512 alone
    assert [[t.name for t in group] for group in shards.values()] == [
        ["b.weight", "a.bias", "ä ☃"],
        ["c"],
    ]
    assert list(shards) == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, group in shards.items():
        with (tmp_path / name).open("wb") as out:
            write_file(out, group, (want[t.name] for t in group))
    write_index(tmp_path, shards)
    assert json.loads((tmp_path / INDEX).read_text())["metadata"] == {"total_size": 604}
    assert_same_bits(read_all(tmp_path), want)
    assert shard(tensors, 604) == {WHOLE: tensors}
    assert len(shard(tensors, 1)) == 4


def write_shards(folder: Path, index: object = None) -> dict[str, np.ndarray]:
    """Two shards, of a and b and of c, and an index; returns what they hold."""
    want = {name: np.full((2, 2), i, np.float32) for i, name in enumerate("abc")}
    save_file({n: want[n] for n in "ab"}, folder / "one.safetensors")
    save_file({"c": want["c"]}, folder / "two.safetensors")
    right = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    if isinstance(index, dict):
        index = json.dumps({"weight_map": {k: v for k, v in (right | index).items() if v}})
    (folder / INDEX).write_text(index or json.dumps({"weight_map": right}))
    return want


def test_shards_under_names_of_any_kind_and_files_that_are_none(tmp_path):
    want = write_shards(tmp_path)
    save_file({"other": want["a"]}, tmp_path / "consolidated.safetensors")
    assert_same_bits(read_all(tmp_path), want)


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ({"d": "three.safetensors"}, r"lacks 'three\.safetensors'"),
        ({"d": "two.safetensors"}, r"names tensor 'd' in two\.safetensors, which does not hold it"),
        ({"a": "two.safetensors"}, r"tensor 'a' in 'two\.safetensors', but one\.safetensors"),
        ({"b": None}, "tensor 'b' in None"),
        ({"d": "../two.safetensors"}, r"lacks '\.\./two\.safetensors'"),
        ({"d": "/etc/passwd"}, "lacks '/etc/passwd'"),
        ({"d": "./two.safetensors"}, r"lacks '\./two\.safetensors'"),
        ({"d": 3}, "cannot be read.*fetch it again"),
        ({"a": None, "b": None, "c": None}, "weight_map is empty"),
        ('{"weight_map": []}', "cannot be read"),
        ('{"weight_map": null}', "cannot be read"),
        ("{}", "cannot be read.*weight_map"),
        ("[]", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"weight_map": {"a": "\x00"}}', "cannot be read"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path, index, named):
    (tmp_path / "model").mkdir()
    save_file({"d": np.zeros(1, np.float32)}, tmp_path / "two.safetensors")
    write_shards(tmp_path / "model", index)
    with pytest.raises(UserError, match=named) as error:
        stored_tensors(LocalFiles(tmp_path / "model"))
    assert str(tmp_path / "model") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("present", "named"),
    [
        ([], "give the folder that holds the weights"),
        (["adapter_model.safetensors", "adapter_config.json"], "LoRA adapter; merge it"),
        (["pytorch_model.bin"], "PyTorch pickles; save the model again as safetensors"),
        (["consolidated.00.pth"], "PyTorch pickles"),
        (["model-00001-of-00002.safetensors"], "fetch model.safetensors.index.json, or rename"),
    ],
)
def test_a_folder_without_weights_says_what_to_do(tmp_path, present, named):
    for name in ["config.json", *present]:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(UserError, match=f"neither {WHOLE} nor {INDEX}.*{named}"):
        stored_tensors(LocalFiles(tmp_path))


@pytest.fixture(scope="module")
def matrices(tmp_path_factory):
    """A file with a matrix and a vector of each type, and their values."""
    folder = tmp_path_factory.mktemp("matrices")
    want = {}
    for dtype in DTYPES:
        want[f"matrix {dtype}"] = np.arange(13 * 9).astype(dtype).reshape(13, 9)
        want[f"vector {dtype}"] = np.arange(11).astype(dtype)
    save_file(want, folder / WHOLE)
    files = LocalFiles(folder)
    return files, stored_tensors(files), want


def part(size: int) -> st.SearchStrategy[slice]:
    bounds = st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted)
    return bounds.map(lambda pair: slice(*pair))


@given(dtype=st.sampled_from(DTYPES), rows=part(13), columns=part(9))
def test_any_block_of_a_matrix(matrices, dtype, rows, columns):
    files, tensors, want = matrices
    block = read_block(files, tensors[f"matrix {dtype}"], rows, columns)
    assert block.dtype == dtype
    np.testing.assert_array_equal(block, want[f"matrix {dtype}"][rows, columns])


@given(dtype=st.sampled_from(DTYPES), rows=part(11), columns=part(1))
def test_any_block_of_a_vector(matrices, dtype, rows, columns):
    files, tensors, want = matrices
    block = read_block(files, tensors[f"vector {dtype}"], rows, columns)
    np.testing.assert_array_equal(block, want[f"vector {dtype}"][:, None][rows, columns])


def test_empty_tensors_other_types_and_spaces_are_read_as_the_library_does(tmp_path):
    header = {"z": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]}, "a": ONE}
    header |= {"i": {"dtype": "I64", "shape": [1], "data_offsets": [4, 12]}}
    content = raw(b"  %s  " % json.dumps(header).encode(), bytes(12))
    found = headers(tmp_path, content)
    with safe_open(tmp_path / WHOLE, "numpy") as file:
        want = {name: tuple(file.get_slice(name).get_shape()) for name in header}
    assert {name: tensor.shape for name, tensor in found.items()} == want
    assert {name: tensor.kind for name, tensor in found.items()}["i"] == "I64"
