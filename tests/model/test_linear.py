"""A layer's linear maps on a single CPU: rows of tokens, the same numbers, nothing transposed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_gguf import TINY

from rlif_jax.kernels.compiler_options import product_options
from rlif_jax.model.lora import linear
from rlif_jax.sharding import make_mesh

INPUTS = {"q": (5,), "o": (3, 4), "down": (7,)}
WEIGHTS = {"q": (5, 3, 4), "o": (3, 4, 5), "down": (7, 5)}


def value_and_gradients(name: str, dtype: str, scale: float):
    """Of a sum over the outputs that weighs each differently, by input and by weight."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 11, *INPUTS[name])).astype(dtype)
    w = (scale * jax.random.normal(keys[1], WEIGHTS[name])).astype(dtype)

    def total(x, w):
        y = linear(TINY, x, {name: w}, name)
        return jnp.sum(y.astype(jnp.float32) * jax.random.normal(keys[2], y.shape)), y

    (_, y), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(x, w)
    return jax.tree.map(lambda a: np.asarray(a.astype(jnp.float32)), (y, *gradients))


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("name", WEIGHTS)
def test_rows_of_tokens_give_what_whole_arrays_give(name, scale, dtype, rtol, monkeypatch):
    got = value_and_gradients(name, dtype, scale)
    monkeypatch.setattr("rlif_jax.model.lora.on_one_cpu", lambda: False)
    for got_one, want in zip(got, value_and_gradients(name, dtype, scale), strict=True):
        assert got_one.shape == want.shape
        np.testing.assert_allclose(got_one, want, rtol=rtol, atol=rtol * np.abs(want).max())


def gradient_program() -> str:
    """What XLA makes of the gradient of a gated block of one packed row."""
    T, D, F = 640, 48, 160

    def loss(w, x):
        gate = jax.nn.silu(linear(TINY, x, w, "gate"))
        return jnp.sum(linear(TINY, gate * linear(TINY, x, w, "up"), w, "down") ** 2)

    w = {"gate": (D, F), "up": (D, F), "down": (F, D)}
    shapes = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in w.items()}
    x = jax.ShapeDtypeStruct((1, T, D), "float32")
    gradient = jax.jit(jax.grad(loss), compiler_options=product_options())
    return gradient.lower(shapes, x).compile().as_text() or ""


def test_no_gradient_transposes_the_activations(monkeypatch):
    """Of T = 640 tokens: an array of F by T would be one written in strides."""
    assert "f32[160,640]" not in gradient_program()
    monkeypatch.setattr("rlif_jax.model.lora.on_one_cpu", lambda: False)
    assert "f32[160,640]" in gradient_program()


def test_products_on_a_single_cpu_are_not_handed_to_ynnpack():
    text = gradient_program()
    assert "kind=kCustom" not in text
    assert "dot(" in text


def test_options_of_xla_are_those_of_a_single_cpu(monkeypatch):
    assert product_options() == {"xla_cpu_experimental_ynn_fusion_type": ""}
    with jax.set_mesh(make_mesh()):
        assert product_options()
    with jax.set_mesh(make_mesh(data=2)):
        assert product_options() is None
    monkeypatch.setattr("rlif_jax.kernels.compiler_options.sharding.platform", lambda: "tpu")
    assert product_options() is None


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    unknown = {"xla_cpu_no_such_option": ""}
    monkeypatch.setattr("rlif_jax.kernels.compiler_options._WITHOUT_YNNPACK", unknown)
    assert product_options() is None
