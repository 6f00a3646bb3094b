"""The decoder agrees with itself: with and without remat or padding, on one device and on eight."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.decoders import CONFIGS, decoder, forward
from support.placed import batch_sharding
from support.tiny_gguf import TINY, positions

from rlif_jax import sharding
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.model.cache import init_cache
from rlif_jax.model.config import kv_bytes_per_token, param_count, param_specs
from rlif_jax.model.decoder import Decoder

B, P, C = 3, 6, 3


@pytest.fixture
def rows():
    """Left-padded rows with 6, 4 and 1 prompt tokens, then 3 completion tokens: tokens, mask."""
    tokens = np.random.default_rng(0).integers(0, TINY.vocab_size, (B, P + C)).astype(np.int32)
    return jnp.asarray(tokens), jnp.asarray(np.arange(P + C)[None] >= np.array([[0], [2], [5]]))


def test_padding_and_the_future_are_never_seen(rows):
    tokens, mask = rows
    model, position = decoder(), positions(mask)
    before = forward(model)(tokens, position, Segments.of(mask))
    changed = (
        jnp.where(mask, tokens, (tokens + 7) % TINY.vocab_size).at[:, 7].add(1) % TINY.vocab_size
    )
    after = forward(model)(changed, position, Segments.of(mask))
    live = mask.at[:, 7:].set(False)
    np.testing.assert_array_equal(before[live], after[live])
    assert (np.abs(before[:, 7:] - after[:, 7:]).max(-1) > 0).all()


def test_rows_without_a_single_token_stay_finite(rows):
    tokens, _ = rows
    graphdef, params = nnx.split(decoder())
    none = jnp.zeros(tokens.shape, bool)

    def total(params):
        return jnp.sum(nnx.merge(graphdef, params)(tokens, positions(none), Segments.of(none)))

    for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(total))(params)):
        assert np.isfinite(leaf).all()


def gradient_of(remat: str, rows):
    """The gradient by all parameters as a function of them, and the parameters."""
    tokens, mask = rows
    graphdef, params = nnx.split(decoder(remat=remat))

    def loss(params):
        x = nnx.merge(graphdef, params)(tokens, positions(mask), Segments.of(mask))
        return jnp.mean(jnp.sin(x))

    return jax.value_and_grad(loss), params


@pytest.mark.parametrize("remat", ["layer", "attention", "offload"])
def test_remat_changes_memory_not_gradients(rows, remat):
    plain, params = gradient_of("none", rows)
    policy, _ = gradient_of(remat, rows)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, jax.jit(policy)(params), jax.jit(plain)(params))


def test_remat_keeps_what_its_name_says(rows):
    """Shapes that the forward pass stacks over the layers, read from the backward pass's program.

    With nothing recomputed they are many. `offload` keeps the inputs where the host has them.
    """
    (B, T), cfg = rows[0].shape, TINY
    layer_input = f"f32[{cfg.layers},{B},{T},{cfg.embed}]"
    queries = cfg.heads // cfg.kv_heads * T  # of a key/value head, as the blocked kernel has them
    attention_out = f"f32[{cfg.layers},{B},{cfg.kv_heads},{queries},{cfg.head_dim}]"
    programs = {}
    for remat in ("none", "layer", "attention", "offload"):
        gradient, params = gradient_of(remat, rows)
        programs[remat] = str(jax.make_jaxpr(gradient)(params))
    assert all(("remat" in text) == (remat != "none") for remat, text in programs.items())
    assert {r for r, text in programs.items() if attention_out in text} == {"none", "attention"}
    assert all(layer_input in text for remat, text in programs.items() if remat != "offload")
    on_host = layer_input.replace("f32[", "f32<host>[")
    assert {r for r, text in programs.items() if on_host in text} == {"offload"}
    assert layer_input not in programs["offload"]


@pytest.mark.parametrize("family", ["llama", "qwen"])
def test_eight_devices_equal_one(family):
    """Values and gradients on a (data 2, fsdp 2, tensor 2) mesh, with parameters really split."""
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, TINY.vocab_size, (4, 8)))
    mask = jnp.asarray(np.arange(8)[None] >= np.array([[0], [3], [7], [1]]))
    graphdef, params = nnx.split(decoder(family, remat="layer"))

    def loss(params, tokens, mask):
        model = nnx.merge(graphdef, params)
        x_BTD = model(tokens, positions(mask), Segments.of(mask))
        logits = jnp.einsum("BTD,VD->BTV", x_BTD, model.head_VD[: TINY.vocab_size])
        return jnp.mean(jnp.where(mask[..., None], jax.nn.log_softmax(logits) ** 2, 0)), logits

    step = jax.value_and_grad(loss, has_aux=True)
    want = jax.jit(step)(params, tokens, mask)
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    placed = jax.device_put(params, sharding.param_shardings(params, mesh))
    assert len(placed["layers"]["q"][...].sharding.device_set) == 8
    assert placed["layers"]["q"][...].addressable_shards[0].data.shape == (2, 16, 2, 8)
    data = jax.device_put((tokens, mask), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        got = jax.jit(step)(placed, *data)
    # Sums of terms that cancel, in another order: by the processor's vectors, more or fewer digits.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), got, want)


def test_every_parameter_is_declared_once_with_known_axes():
    model = decoder("qwen")
    specs = param_specs(model.cfg)
    state = nnx.state(model, nnx.Param).flat_state()
    found = {".".join(path): variable for path, variable in state}
    assert found.keys() == specs.keys()
    for name, variable in found.items():
        assert variable.axes == specs[name].axes
        assert variable[...].shape == specs[name].shape
        assert set(variable.axes) <= set(sharding.RULES_TRAIN)


def test_axes_that_do_not_divide_are_replicated():
    cfg = dataclasses.replace(TINY, heads=3, kv_heads=3)
    _, params = nnx.split(Decoder.init(cfg, jax.random.key(0)))
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    shardings = sharding.param_shardings(params, mesh)
    spec = jax.sharding.PartitionSpec
    assert shardings["layers"]["q"].get_value().spec == spec(None, "fsdp")
    assert shardings["layers"]["down"].get_value().spec == spec(None, "tensor", "fsdp")


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_padding_are_zero_and_never_seen(rows, tied):
    """An odd vocabulary is padded in memory; the logits are those of its own rows."""
    tokens, mask = rows
    cfg = dataclasses.replace(TINY, vocab_size=41, tied=tied)
    model = Decoder.init(cfg, jax.random.key(0))
    assert model.head_VD.shape == (cfg.vocab_rows, cfg.embed) == (128, 32)
    assert not np.asarray(model.head_VD[41:]).any() and np.asarray(model.head_VD[:41]).all(1).all()
    logits = model.logits(tokens, None, mask)
    assert logits.shape == (*tokens.shape, 41)
    x = model(tokens, positions(mask), Segments.of(mask))
    np.testing.assert_allclose(logits, x @ model.head_VD[:41].T, atol=1e-5)


def test_parameters_and_cache_are_counted():
    cfg = dataclasses.replace(CONFIGS["qwen"], vocab_size=41)
    params = nnx.state(Decoder.init(cfg, jax.random.key(0)), nnx.Param)
    padding = 2 * (128 - 41) * cfg.embed
    assert param_count(cfg) == sum(x.size for x in jax.tree.leaves(params)) - padding
    cache = init_cache(cfg, pages=3, page=5, dtype="bfloat16")
    assert kv_bytes_per_token(cfg) == (cache.k.nbytes + cache.v.nbytes) // 15


def test_compiled_programs_do_not_grow_with_depth(rows):
    """Layers are scanned: the program of 28 is that of 2, with other numbers in it."""
    tokens, mask = rows

    def operations(layers: int) -> int:
        cfg = dataclasses.replace(CONFIGS["qwen"], layers=layers)
        model = nnx.eval_shape(lambda: Decoder.init(cfg, jax.random.key(0)))
        graphdef, params = nnx.split(model)
        forward = jax.jit(
            lambda p: nnx.merge(graphdef, p)(tokens, positions(mask), Segments.of(mask)).sum()
        )
        return len(jax.jit(jax.grad(forward)).lower(params).as_text().splitlines())

    assert operations(2) == operations(28)
