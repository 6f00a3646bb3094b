"""The files of a model folder, local and in a bucket: byte ranges, blocks of matrices, refusals.

A bucket is read by tensorstore's own driver from a local server. The driver reads its environment
when it opens a bucket, and looks for credentials once in a process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.servers import BucketServer

from rlif_jax.errors import UserError
from rlif_jax.storage import bucket as bucket_module
from rlif_jax.storage import files
from rlif_jax.storage.bucket import BucketFiles, open_files
from rlif_jax.storage.files import LocalFiles

OFFSET, ROWS, ROW_BYTES = 1003, 700, 96
MATRIX = np.random.default_rng(0).integers(0, 256, (ROWS, ROW_BYTES), np.uint8)
CONTENT = {
    "config.json": b'{"model_type": "qwen3"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "weights.safetensors": b"h" * OFFSET + MATRIX.tobytes() + b"tail",
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
    "empty.txt": b"",
    "deep/below/file": b"not listed",
}
NAMES = frozenset(CONTENT) - {"deep/below/file"}
WEIGHTS = "weights.safetensors"
LOCATION = "gs://some-bucket/models/tiny"


@pytest.fixture(scope="module")
def bucket():
    """The server of a bucket with the model folder, and another folder whose name begins alike."""
    objects = {f"models/tiny/{name}": content for name, content in CONTENT.items()}
    objects |= {"models/tiny-2/config.json": b"another", "models/tiny/deep/": b""}
    with BucketServer("some-bucket", objects) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        patch.setenv("CLOUDSDK_CONFIG", os.devnull)
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    for name, content in CONTENT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / ".cache").write_bytes(b"hidden")
    return root


@pytest.fixture(params=["local", "bucket"])
def model(request, bucket, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    return open_files(folder if request.param == "local" else LOCATION)


def test_names_sizes_and_ranges(model):
    assert model.names() == NAMES
    for name in NAMES:
        size = len(CONTENT[name])
        assert not model.has_byte(name, size) and not model.has_byte(name, size + 1)
        assert all(model.has_byte(name, at) for at in {0, size // 2, size - 1} if 0 <= at < size)
    read = {name: model.read(name) for name in NAMES}
    assert read == {name: CONTENT[name] for name in NAMES}
    assert model.bytes_read == sum(len(CONTENT[name]) for name in NAMES)
    assert model.read(WEIGHTS, 1001, 1010) == CONTENT[WEIGHTS][1001:1010]
    assert model.read(WEIGHTS, OFFSET) == CONTENT[WEIGHTS][OFFSET:]
    assert model.read(WEIGHTS, 5, 5) == b""


@given(
    rows=st.tuples(st.integers(0, ROWS), st.integers(0, ROWS)).map(sorted),
    columns=st.tuples(st.integers(0, ROW_BYTES), st.integers(0, ROW_BYTES)).map(sorted),
    piece=st.sampled_from([7, ROW_BYTES, 5 * ROW_BYTES + 1, 1 << 20]),
)
def test_any_block_in_pieces_of_any_size(folder, rows, columns, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "MAPPED_BYTES", max(piece, ROW_BYTES // 8))
        model = LocalFiles(folder)
        block = model.block(WEIGHTS, OFFSET, ROWS, ROW_BYTES, slice(*rows), slice(*columns))
    np.testing.assert_array_equal(block, MATRIX[slice(*rows), slice(*columns)])
    assert block.dtype == np.uint8 and model.bytes_read == block.size


@pytest.mark.parametrize("piece", [40, 10 * ROW_BYTES, 1 << 20])
@pytest.mark.parametrize(
    "rows, columns",
    [(slice(None), slice(None)), (slice(3, 611), slice(32, 64)), (slice(10, 10), slice(0, 5))],
)
def test_a_block_of_a_bucket_reads_its_own_rows_only(bucket, monkeypatch, rows, columns, piece):
    if piece == 40:
        rows = slice(rows.start, (rows.start or 0) + 20)
    monkeypatch.setattr(bucket_module, "FETCHED_BYTES", piece)
    model = BucketFiles(LOCATION)
    bucket.reads.clear()
    block = model.block(WEIGHTS, OFFSET, ROWS, ROW_BYTES, rows, columns)
    np.testing.assert_array_equal(block, MATRIX[rows, columns])
    assert model.bytes_read == block.size
    first, last, _ = rows.indices(ROWS)
    for _, start, stop in bucket.reads:
        assert OFFSET + first * ROW_BYTES <= start < stop <= OFFSET + last * ROW_BYTES
        assert stop - start <= piece
    fetched = sum(stop - start for _, start, stop in bucket.reads)
    assert block.size <= model.bytes_fetched == fetched <= (last - first) * ROW_BYTES
    assert bool(bucket.reads) == bool(block.size)


@pytest.mark.parametrize("size", [1, 2, 4096, 262_144, 262_145, 5_000_001, 1 << 24])
def test_the_end_of_an_object_is_found_by_two_bytes(bucket, size):
    bucket.files["models/tiny/big"] = bytes(size)
    bucket.reads.clear()
    model = BucketFiles(LOCATION)
    assert model.has_byte("big", size - 1) and not model.has_byte("big", size)
    assert bucket.reads == [("models/tiny/big", size - 1, size), ("models/tiny/big", size, size)]
    assert not model.has_byte("big", 2 * size)
    del bucket.files["models/tiny/big"]


def test_a_part_of_the_columns_of_a_bucket_costs_the_rows(bucket):
    """All but the ends, before the first row's part and after the last one's."""
    model = BucketFiles(LOCATION)
    model.block(WEIGHTS, OFFSET, ROWS, ROW_BYTES, slice(10, 110), slice(24, 48))
    assert (model.bytes_read, model.bytes_fetched) == (100 * 24, 100 * ROW_BYTES - 24 - 48)
    content = CONTENT["config.json"]
    assert model.read("config.json") == content
    assert model.bytes_fetched == 100 * ROW_BYTES - 24 - 48 + len(content)


def test_what_is_not_there_or_cut_short_is_named(model):
    size = len(CONTENT[WEIGHTS])
    for act in (
        lambda: model.read(WEIGHTS, size - 2, size + 2),
        lambda: model.block(WEIGHTS, OFFSET, ROWS + 1, ROW_BYTES, slice(5, ROWS + 1), slice(0, 9)),
    ):
        with pytest.raises(
            UserError, match=r"weights\.safetensors in .* ends before byte .*fetch it"
        ):
            act()
    for act in (
        lambda name: model.has_byte(name, 0),
        model.read,
        lambda name: model.block(name, 0, 2, 2),
    ):
        with pytest.raises(UserError, match=r"has no file absent\.safetensors"):
            act("absent.safetensors")
        for name in ("../outside", "/etc/passwd", "a/../../b", ""):
            with pytest.raises(UserError, match="not the name of a file in that folder"):
                act(name)


def test_local_copies(bucket, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path))
    names = ["config.json", "additional_chat_templates/tools.jinja"]
    assert open_files(folder).local_copy(names) == folder
    copy = open_files(LOCATION).local_copy(names)
    assert tmp_path in copy.parents
    assert {n: (copy / n).read_bytes() for n in names} == {n: CONTENT[n] for n in names}
    assert sum(path.is_file() for path in copy.rglob("*")) == len(names)
    bucket.reads.clear()
    assert open_files(LOCATION).local_copy(names) == copy
    assert bucket.reads == []  # metadata alone tells that the copy is current
    monkeypatch.setitem(bucket.files, "models/tiny/config.json", b'{"model_type": "llama"}')
    newer = open_files(LOCATION).local_copy(names)
    assert (newer / "config.json").read_bytes() == b'{"model_type": "llama"}'
    assert (copy / "config.json").read_bytes() == CONTENT["config.json"]
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="RLIF_CACHE"):
        open_files(LOCATION).local_copy(names)


def run(program: str, *arguments: str, **variables) -> subprocess.Popen:
    command = [sys.executable, "-c", program, *arguments]
    environment = os.environ | variables
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_two_processes_may_copy_at_once(bucket, tmp_path):
    program = (
        "import sys; from rlif_jax.storage.bucket import open_files\n"
        "print(open_files(sys.argv[1]).local_copy(sys.argv[2:]))"
    )
    names = ["config.json", "tokenizer.json"]
    running = [run(program, LOCATION, *names, RLIF_CACHE=str(tmp_path)) for _ in range(2)]
    copies = {Path(process.communicate()[0].strip()) for process in running}
    assert len(copies) == 1
    copy = copies.pop()
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        name: CONTENT[name] for name in names
    }
    assert list(copy.parent.iterdir()) == [copy]


def test_a_local_block_does_not_stay_mapped(tmp_path):
    """A quarter of the columns of a 512 MB matrix: resident memory grows by little more than it."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 29)
    program = (
        "import re, sys; from rlif_jax.storage.files import LocalFiles\n"
        "status = lambda: open('/proc/self/status').read()\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+) kB', status())[1]) << 10\n"
        "before = peak()\n"
        "block = LocalFiles(sys.argv[1]).block('big', 0, 1 << 15, 1 << 14, slice(None),"
        " slice(0, 1 << 12))\n"
        "print(block.nbytes, peak() - before)"
    )
    size, grown = map(int, run(program, str(tmp_path)).communicate()[0].split())
    assert size == 1 << 27
    assert grown < size + (64 << 20)


def test_a_public_bucket_needs_no_credentials_and_others_use_theirs(bucket):
    program = (
        "import sys; from rlif_jax.storage.bucket import open_files\n"
        "print(open_files(sys.argv[1]).read('config.json').decode())"
    )
    for token, sent in ({}, {None}), ({"GOOGLE_AUTH_TOKEN_FOR_TESTING": "abc"}, {"Bearer abc"}):
        bucket.authorization.clear()
        output = run(program, LOCATION, **token).communicate()[0]
        assert json.loads(output) == json.loads(CONTENT["config.json"])
        assert set(bucket.authorization) == sent


@pytest.mark.parametrize("status", [401, 403])
def test_a_bucket_that_refuses_says_how_to_be_let_in(bucket, monkeypatch, status):
    monkeypatch.setattr(bucket, "status", status)
    with pytest.raises(UserError) as error:
        open_files(LOCATION)
    for word in (LOCATION, "denied", "gcloud auth", "GOOGLE_APPLICATION_CREDENTIALS", "cp -r"):
        assert word in str(error.value)


@pytest.mark.parametrize("location", ["gs://some-bucket/absent", "gs://other-bucket/models/tiny"])
def test_an_empty_place_or_no_bucket(bucket, location):
    with pytest.raises(UserError, match="nothing at " + location) as error:
        open_files(location)
    assert f"gcloud storage ls {location}" in str(error.value)


def test_no_network(monkeypatch):
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError) as error:
        open_files(LOCATION)
    for word in (LOCATION, "connect", "check the network", "gcloud storage cp -r"):
        assert word in str(error.value)


@pytest.mark.parametrize("location", ["gs://", "gs:///models/tiny", "gs://Bad_Bucket!/x"])
def test_malformed_places(location):
    with pytest.raises(UserError, match="gs://BUCKET/PATH") as error:
        open_files(location)
    assert location in str(error.value)


def test_local_folders_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    for name, what in (("absent", "does not exist"), ("empty", "is empty"), ("file", "is a file")):
        with pytest.raises(UserError, match=what) as error:
            open_files(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(UserError, match=r"neither a local folder nor gs://BUCKET/PATH"):
        open_files("s3://bucket/model")
