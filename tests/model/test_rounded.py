"""Weights in fewer bits: the nearest numbers, and products with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.decoders import CONFIGS, decoder

from rlif_jax.kernels.precision import tensordot
from rlif_jax.model.cache import init_cache
from rlif_jax.model.per_layer import PerLayer
from rlif_jax.model.rounded import Int8
from rlif_jax.run.digest import by_path
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import make_mesh, param_shardings

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


def test_rounding_by_hand():
    """One layer, two inputs, three outputs: scales 1, 2 and, of nothing but zeros, 1."""
    stacked = jnp.array([[[127.0, -254.0, 0.0], [0.4, 3.1, 0.0]]])
    rounded = Int8.of(stacked, 1)
    assert rounded.array.dtype == jnp.int8
    np.testing.assert_array_equal(rounded.array, [[[127, -127, 0], [0, 2, 0]]])
    np.testing.assert_array_equal(rounded.scale, [[1, 2, 1]])
    np.testing.assert_array_equal(rounded.numbers(), [[[127, -254, 0], [0, 4, 0]]])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(
    ("shape", "inputs"), [((3, 5, 7), 1), ((3, 7, 5, 2), 2), ((3, 2, 7, 5), 1)]
)
def test_no_number_is_off_by_more_than_half_a_step(shape, inputs, scale):
    stacked = scale * jax.random.normal(jax.random.key(0), shape)
    rounded = Int8.of(stacked, inputs)
    axes = tuple(range(1, 1 + inputs))
    step = np.abs(stacked).max(axes, keepdims=True) / 127
    assert (np.abs(rounded.numbers() - stacked) <= 0.5001 * step).all()
    assert rounded.scale.shape == (3, *shape[1 + inputs :])


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("axes", "inputs"), [((5, 7, 3), 1), ((7, 3, 5), 2)])
def test_a_product_is_that_of_the_rounded_numbers(axes, inputs, scale, dtype, rtol):
    w, x_key = jax.random.split(jax.random.key(0))
    rounded = Int8.of(scale * jax.random.normal(w, (1, *axes)), inputs)
    x = jax.random.normal(x_key, (2, 11, *axes[:inputs])).astype(dtype)
    got = jax.tree.map(lambda a: a[0], rounded).product(x, inputs)
    assert got.dtype == dtype
    want = tensordot(x.astype(jnp.float32), rounded.numbers()[0], axes=inputs)
    atol = rtol * float(np.abs(want).max())
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=rtol, atol=atol)


def nearest(name: str, value: jax.Array, dtype: str) -> np.ndarray:
    """A parameter as the sampler is to have it."""
    if name not in MATRICES:
        return np.asarray(value)
    if dtype == "bfloat16":
        return np.asarray(value.astype(jnp.bfloat16), np.float32)
    return np.asarray(Int8.of(value, 2 if name == "o" else 1).numbers())


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_a_single_cpu_rounds_and_stores_as_before(dtype):
    graphdef, params = nnx.split(decoder("llama"))
    synced = make_sync(graphdef, dtype)(params)
    for name, param in params["layers"].items():
        value, apart = param.get_value(), synced["layers"][name].get_value()
        assert isinstance(apart, PerLayer) and apart.dtype == jnp.float32
        np.testing.assert_array_equal(apart.joined(), nearest(name, value, dtype))
        np.testing.assert_array_equal(apart.joined(), apart.stacked)
        assert (name in MATRICES) == bool(np.abs(apart.joined() - value).max() > 0), name
    assert synced["embed"].get_value() is params["embed"].get_value()


@pytest.mark.parametrize(
    ("family", "dtype"), [("llama", "bfloat16"), *((family, "int8") for family in CONFIGS)]
)
def test_a_mesh_stores_them_and_decodes_with_the_rounded_numbers(family, dtype):
    """Split over heads, outputs and inputs; prefill and a decode step."""
    graphdef, params = nnx.split(decoder(family))
    plain = nnx.State.from_flat_path(
        (path, variable.replace(jnp.asarray(nearest(path[-1], variable.get_value(), dtype))))
        for path, variable in params.flat_state()
    )
    tokens_BT = np.random.default_rng(0).integers(0, 40, (4, 6)).astype(np.int32)

    @jax.jit
    def states(params, cache):
        model = nnx.merge(graphdef, params)
        x_BTD, _, _ = model.prefill(tokens_BT)
        table_BJ, ones_B = np.array([[1], [2], [3], [4]]), np.ones(4, np.int32)
        x_BD, _ = model.decode(tokens_BT[:, 0], cache, table_BJ, 0 * ones_B, ones_B > 0)
        return x_BTD, x_BD

    want = states(make_sync(graphdef)(plain), init_cache(decoder(family).cfg, pages=5, page=8))
    with jax.set_mesh(mesh := make_mesh(data=2, fsdp=1, tensor=2)):
        placed = jax.device_put(params, param_shardings(params, mesh))
        synced = make_sync(graphdef, dtype)(placed)
        got = states(synced, init_cache(decoder(family).cfg, pages=5, page=8))
    stored = {name: x.dtype for name, x in by_path(synced).items()}
    for name in MATRICES:
        at = f"layers.{name}.array" if dtype == "int8" else f"layers.{name}"
        assert stored[at] == dtype
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)
