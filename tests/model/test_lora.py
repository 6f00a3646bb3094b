"""Low-rank adapters: the base model at first, the chain rule, merging, and many devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.decoders import CONFIGS, decoder, stacked
from support.tiny_gguf import TINY

from rlif_jax.model.config import INPUT_AXES, Lora, adapter_specs, param_specs
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.lora import Adapter, divided, fresh_adapters, trained, without_adapters
from rlif_jax.sampler.sampler import Sampler
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import RULES_DECODE, make_mesh, param_shardings
from rlif_jax.weights.parameters import named
from rlif_jax.weights.source import open_model

ALL = tuple(INPUT_AXES)
LORA = Lora(rank=3, alpha=6.0, targets=ALL)
TOKENS_RT = np.random.default_rng(0).integers(3, 40, (4, 9))


@functools.cache
def with_adapters(family: str = "qwen", lora: Lora = LORA, b_scale: float = 0.0, **changed):
    """The random decoder of a family with adapters, whose `b` has this deviation."""
    base = decoder(family, **changed)
    cfg = dataclasses.replace(base.cfg, lora=lora)
    values = named(nnx.state(base)) | fresh_adapters(cfg, jax.random.key(2))
    noise = np.random.default_rng(3)
    for name, spec in adapter_specs(cfg).items():
        if name.endswith("_b"):
            values[name] = jnp.asarray(b_scale * noise.normal(size=spec.shape), jnp.float32)
    return Decoder(cfg, lambda name, _: values[name])


def loss(graphdef, params, *frozen):
    """Some scalar that depends on every logit."""
    logits_RTV = nnx.merge(graphdef, params, *frozen).logits(TOKENS_RT)
    weight_RTV = np.random.default_rng(1).normal(size=logits_RTV.shape)
    return (logits_RTV * weight_RTV).sum()


@functools.partial(jax.jit, static_argnums=0)
def adapter_gradient(graphdef, params):
    adapters, frozen = divided(params)
    return jax.value_and_grad(loss, argnums=1)(graphdef, adapters, frozen)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fresh_adapters_change_nothing_and_only_b_has_a_gradient(dtype):
    base, model = decoder("qwen", dtype=dtype), with_adapters(dtype=dtype)
    want, got = (jax.jit(lambda m: m.logits(TOKENS_RT))(m) for m in (base, model))
    # Adapters add zeros, but XLA may fuse the two programs apart, which rounds otherwise.
    np.testing.assert_allclose(got, want, atol={"float32": 1e-5, "bfloat16": 2e-2}[dtype])
    _, grads = adapter_gradient(*nnx.split(model))
    flat = named(grads)
    assert flat.keys() == adapter_specs(model.cfg).keys()
    for name, grad in flat.items():
        assert bool(np.any(np.asarray(grad))) == name.endswith("_b"), name


@pytest.mark.parametrize("targets", [ALL, ("o",), ("q", "down")])
def test_adapters_are_declared_for_their_targets_alone(targets):
    cfg = dataclasses.replace(CONFIGS["qwen"], lora=Lora(2, 4.0, targets))
    names = {f"layers.{t}_lora_{x}" for t in targets for x in "ab"}
    assert adapter_specs(cfg).keys() == names
    assert param_specs(cfg).keys() - names == param_specs(CONFIGS["qwen"]).keys()
    _, params = nnx.split(nnx.eval_shape(lambda: Decoder.init(cfg, jax.random.key(0))))
    assert named(trained(params)).keys() == names


def test_without_adapters_everything_is_trained():
    _, params = nnx.split(decoder())
    moving, frozen = divided(params)
    assert named(moving).keys() == param_specs(TINY).keys() and not frozen


def test_the_gradient_is_that_of_the_merged_weight_by_the_chain_rule():
    """dA = scale dW B^T and dB = scale A^T dW, with dW of the model that has w + scale a b."""
    graphdef, params = nnx.split(with_adapters(b_scale=0.1))
    value, grads = adapter_gradient(graphdef, params)
    dense = stacked(make_sync(graphdef)(params))
    at_dense = jax.jit(jax.value_and_grad(functools.partial(loss, without_adapters(graphdef))))
    want_value, dense_grads = at_dense(dense)
    np.testing.assert_allclose(value, want_value, rtol=1e-5)
    adapters, grads, dense_grads = named(params), named(grads), named(dense_grads)
    for target in ALL:
        a, b = (adapters[f"layers.{target}_lora_{x}"] for x in "ab")
        dw = dense_grads[f"layers.{target}"]
        L, r = b.shape[:2]
        a_LIr, b_LrO = np.reshape(a, (L, -1, r)), np.reshape(b, (L, r, -1))
        dw_LIO = np.reshape(dw, (L, a_LIr.shape[1], -1))
        want_a = LORA.scale * np.einsum("LIO,LrO->LIr", dw_LIO, b_LrO).reshape(a.shape)
        want_b = LORA.scale * np.einsum("LIr,LIO->LrO", a_LIr, dw_LIO).reshape(b.shape)
        for got, want in (
            (grads[f"layers.{target}_lora_a"], want_a),
            (grads[f"layers.{target}_lora_b"], want_b),
        ):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 0.05)])
def test_merged_weights_give_the_same_logits(dtype, tolerance):
    graphdef, params = nnx.split(with_adapters(b_scale=0.1, dtype=dtype))
    merged = stacked(make_sync(graphdef)(params))
    assert named(merged).keys() == param_specs(CONFIGS["qwen"]).keys()
    logits = [
        np.asarray(jax.jit(lambda p, g=g: nnx.merge(g, p).logits(TOKENS_RT))(p))
        for g, p in ((graphdef, params), (without_adapters(graphdef), merged))
    ]
    base = np.asarray(decoder("qwen", dtype=dtype).logits(TOKENS_RT))
    size = np.abs(logits[0]).max()
    assert np.abs(logits[0] - base).max() > 0.2 * size  # the adapters matter
    np.testing.assert_allclose(logits[0], logits[1], atol=tolerance * size)


def test_merging_is_exact_in_float32_and_rounds_once():
    graphdef, params = nnx.split(with_adapters(b_scale=0.1, dtype="bfloat16"))
    values, merged = named(params), named(stacked(make_sync(graphdef)(params)))
    a, b = (values[f"layers.o_lora_{x}"] for x in "ab")
    want = values["layers.o"] + LORA.scale * np.einsum("lhar,lrd->lhad", a, b)
    assert merged["layers.o"].dtype == jnp.bfloat16
    np.testing.assert_allclose(merged["layers.o"].astype(jnp.float32), want, rtol=2**-8, atol=1e-30)


def test_a_sampler_samples_from_the_merged_model(tiny):
    _, _, tokenizer = tiny
    model = with_adapters("llama", b_scale=0.1)
    graphdef, params = nnx.split(model)
    dense = nnx.merge(without_adapters(graphdef), stacked(make_sync(graphdef)(params)))
    drawn = [
        Sampler(m, tokenizer).generate([[5, 6, 7]], n=4, max_new_tokens=6, ignore_eos=True)
        for m in (model, dense)
    ]
    for x, y in zip(*drawn, strict=True):
        np.testing.assert_array_equal(x.tokens, y.tokens)


@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "context": 2}])
def test_one_device_and_many_agree(axes):
    graphdef, params = nnx.split(with_adapters(b_scale=0.1))
    want_value, want = adapter_gradient(graphdef, params)
    merged = named(stacked(make_sync(graphdef)(params)))
    with jax.set_mesh(mesh := make_mesh(**axes)):
        placed = jax.device_put(params, param_shardings(params, mesh))
        value, grads = adapter_gradient(graphdef, placed)
        synced = make_sync(graphdef)(placed)
        places = named(param_shardings(synced, mesh, RULES_DECODE))
    np.testing.assert_allclose(value, want_value, rtol=1e-5)
    for name, grad in named(grads).items():
        size = np.abs(named(want)[name]).max()
        np.testing.assert_allclose(grad, named(want)[name], atol=1e-4 * size, err_msg=name)
    for name, weight in named(synced).items():
        np.testing.assert_allclose(weight, merged[name], rtol=1e-6, atol=1e-6, err_msg=name)
        assert weight.sharding.is_equivalent_to(places[name], weight.ndim), name


def test_adapters_of_a_source_are_drawn_from_the_seed_alone(tiny_path):
    opened, mesh = open_model(str(tiny_path)), make_mesh(fsdp=2, tensor=2)

    def drawn(seed, mesh=None):
        model = opened.load(mesh=mesh, lora=LORA, seed=seed)
        return {n: np.asarray(v) for n, v in named(nnx.state(model, Adapter)).items()}

    here, spread, other = drawn(0), drawn(0, mesh), drawn(1)
    for name, spec in adapter_specs(dataclasses.replace(opened.cfg, lora=LORA)).items():
        np.testing.assert_array_equal(here[name], spread[name])
        if name.endswith("_b"):
            assert not here[name].any()
            continue
        assert (here[name] != other[name]).mean() > 0.99
        bound = np.prod(spec.shape[1:-1]) ** -0.5  # PEFT: uniform of variance 1 / (3 inputs)
        assert 0.9 * bound < np.abs(here[name]).max() <= bound
        assert here[name].std() == pytest.approx(bound / 3**0.5, rel=0.2)
