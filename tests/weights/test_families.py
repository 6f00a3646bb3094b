"""Llama, Qwen2 and Qwen3 folders as transformers saves them, held to transformers' numbers.

`goldens/make_families.py` made the checkpoints: between them they have every flag that a family
has. "Within e" is e times the largest magnitude of the reference array: of all logits at real
tokens, or of the gradient of one tensor.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh
from support import GOLDENS
from support.family_folders import CASES, FAMILIES, family_folder
from support.placed import batch_sharding

from rlif_jax import sharding
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.rope import frequencies, rope_angles
from rlif_jax.storage.files import LocalFiles
from rlif_jax.weights.hf_config import read_hf_config
from rlif_jax.weights.layout import hf_names, to_file
from rlif_jax.weights.source import load_model

ROPES = json.loads((GOLDENS / "rope.json").read_text())


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(folder, golden) of each checkpoint, the folder with a tokenizer."""
    folder = family_folder(request.param, tmp_path_factory.mktemp("families") / request.param)
    return folder, dict(np.load(FAMILIES / request.param / "golden.npz"))


def mesh_for(folder: Path) -> Mesh:
    """A mesh that splits rows and weights, and heads where their number is even."""
    heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
    return sharding.make_mesh(2, 2, 1 if heads % 2 else 2)


def both_sides(golden) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask [2B, T]: the rows padded on the right, then those padded on the left."""
    tokens_BT = np.concatenate([golden["tokens"]] * 2)
    return tokens_BT, np.concatenate([golden["right"], golden["left"]])


def assert_within(got: np.ndarray, want: np.ndarray, tolerance: float, what: str) -> None:
    assert got.shape == want.shape, what
    error = np.abs(got - want).max() / np.abs(want).max()
    assert error <= tolerance, f"{what}: {error:.1e} of the largest magnitude"


def assert_logits(logits_BTV: np.ndarray, golden, tolerance: float) -> None:
    _, mask_BT = both_sides(golden)
    want = np.concatenate([golden["right_logits"], golden["left_logits"]])
    assert np.isfinite(logits_BTV).all()  # padding included
    assert_within(logits_BTV[mask_BT], want, tolerance, "logits")


def logits_and_gradients(model: Decoder, golden, mesh=None) -> tuple[np.ndarray, dict]:
    """Logits of `both_sides`, and the gradients of the golden's loss, under one compilation."""
    graphdef, params = nnx.split(model)
    B = len(golden["tokens"])

    def loss(params, tokens_BT, mask_BT):
        logits_BTV = nnx.merge(graphdef, params).logits(tokens_BT, None, mask_BT)
        logprob_BTV = jax.nn.log_softmax(logits_BTV[:B, :-1])
        next_BT1 = tokens_BT[:B, 1:, None]
        logprob_BT = jnp.take_along_axis(logprob_BTV, next_BT1, axis=2)[..., 0]
        follows_BT = mask_BT[:B, 1:]
        return -jnp.where(follows_BT, logprob_BT, 0).sum() / follows_BT.sum(), logits_BTV

    batch = both_sides(golden)
    if mesh is not None:
        batch = jax.device_put(batch, batch_sharding(mesh))
    grads, logits_BTV = jax.jit(jax.grad(loss, has_aux=True))(params, *batch)
    grads = nnx.to_pure_dict(grads)
    layers = grads.pop("layers")
    return np.asarray(logits_BTV), grads | {f"layers.{name}": g for name, g in layers.items()}


def assert_gradients(grads: dict, golden, cfg, tolerance: float) -> None:
    """Every parameter's gradient against that of the tensors it was read from, and none beyond."""
    left = {key for key in golden if key.startswith("grad:")}
    for name, grad in grads.items():
        names = hf_names(name, cfg.layers)
        for layer, hf_name in enumerate(names):
            value = np.asarray(grad[layer] if name.startswith("layers.") else grad)
            value = to_file(name, value)
            if name in ("embed", "head"):
                assert not value[cfg.vocab_size :].any(), f"padding rows of {name}"
                value = value[: cfg.vocab_size]
            assert_within(value, golden[f"grad:{hf_name}"], tolerance, hf_name)
            left.remove(f"grad:{hf_name}")
    assert not left


def test_logits_and_gradients_equal_transformers(case):
    folder, golden = case
    model, tokenizer = load_model(str(folder))
    logits_BTV, grads = logits_and_gradients(model, golden)
    assert_logits(logits_BTV, golden, 1e-5)
    assert_gradients(grads, golden, model.cfg, 1e-4)
    assert model.cfg.reachable == model.cfg.vocab_size - 1 == len(tokenizer)


@pytest.mark.slow
def test_logits_and_gradients_equal_transformers_on_a_mesh(case):
    folder, golden = case
    mesh = mesh_for(folder)
    with jax.set_mesh(mesh):
        model, _ = load_model(str(folder), mesh=mesh)
        embed = model.embed[...]
        shards = mesh.shape["fsdp"] * mesh.shape["tensor"]
        assert embed.addressable_shards[0].data.size * shards == embed.size
        logits_BTV, grads = logits_and_gradients(model, golden, mesh)
    assert_logits(logits_BTV, golden, 1e-5)
    assert_gradients(grads, golden, model.cfg, 1e-4)


def assert_bfloat16_logits(folder: Path, golden, mesh=None) -> None:
    model, _ = load_model(str(folder), dtype="bfloat16", mesh=mesh)
    batch = both_sides(golden)
    assert nnx.eval_shape(model, batch[0]).dtype == jnp.bfloat16
    if mesh is not None:
        batch = jax.device_put(batch, batch_sharding(mesh))
    graphdef, params = nnx.split(model)

    @jax.jit
    def logits(params, tokens_BT, mask_BT):
        return nnx.merge(graphdef, params).logits(tokens_BT, None, mask_BT)

    logits_BTV = logits(params, *batch)
    assert logits_BTV.dtype == jnp.float32
    assert_logits(np.asarray(logits_BTV), golden, 2e-2)


def test_bfloat16_activations_stay_near_float32(case):
    assert_bfloat16_logits(*case)


def test_bfloat16_activations_stay_near_float32_on_a_mesh(case):
    folder, golden = case
    mesh = mesh_for(folder)
    with jax.set_mesh(mesh):
        assert_bfloat16_logits(folder, golden, mesh)


def test_either_end_of_sequence_token_ends_a_completion(tmp_path):
    model, _ = load_model(str(family_folder("llama-llama3", tmp_path / "model")))
    assert model.cfg.eos_ids == (2, 5)


@pytest.mark.parametrize("entry", ROPES, ids=lambda entry: entry["name"])
def test_rotary_frequencies_equal_transformers(entry, tmp_path):
    """At the widths of published models, and in the corners that the checkpoints above miss."""
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 51, "intermediate_size": 64}
    config |= {"num_hidden_layers": 2, **entry["config"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    cfg = read_hf_config(LocalFiles(tmp_path))
    np.testing.assert_allclose(frequencies(cfg), np.float32(entry["frequencies"]), rtol=1e-6)
    cos_BTI, sin_BTI = rope_angles(jnp.array([[0, 3]]), cfg)
    np.testing.assert_allclose(cos_BTI[0, 0], entry["factor"], rtol=1e-6)
    np.testing.assert_allclose(cos_BTI**2 + sin_BTI**2, entry["factor"] ** 2, rtol=1e-5)
