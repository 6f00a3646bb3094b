"""Weights with an array for each layer compute what the stacked ones do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.decoders import CONFIGS, decoder

from rlif_jax.kernels.precision import tensordot
from rlif_jax.model.cache import init_cache
from rlif_jax.model.per_layer import OutputsFirst, PerLayer
from rlif_jax.sampler.sync import make_sync

PAGE, PAGES = 8, 7
TABLE_BJ = np.array([[3, 1], [5, 2], [6, 4]])


@pytest.mark.parametrize(
    ("shape", "inputs", "stored"),
    [
        ((2, 3, 4, 5), 1, (4, 5, 3)),  # queries: embed -> heads, width
        ((2, 3, 4, 5), 2, (5, 3, 4)),  # outputs: heads, width -> embed
        ((2, 3), 0, (3,)),
    ],
)
def test_layers_are_taken_apart_and_put_together(shape, inputs, stored):
    stacked = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    apart = PerLayer(PerLayer.divided(stacked, inputs), stacked, inputs)
    assert [x.shape for x in apart.arrays] == [stored] * shape[0]
    np.testing.assert_array_equal(apart.joined(), stacked)
    assert len(apart.layers) == shape[0]
    assert isinstance(apart.layers[0], OutputsFirst) == (inputs > 0)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-6), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("axes", "inputs"), [((5, 7, 3), 1), ((7, 3, 5), 2)])
def test_a_product_is_that_of_the_stacked_weight(axes, inputs, scale, dtype, rtol):
    w, x_key = jax.random.split(jax.random.key(0))
    weight = (scale * jax.random.normal(w, (1, *axes))).astype(dtype)
    x = jax.random.normal(x_key, (11, *axes[:inputs])).astype(dtype)
    want = tensordot(x, weight[0], axes=inputs).astype(jnp.float32)
    (layer,) = PerLayer(PerLayer.divided(weight, inputs), weight, inputs).layers
    in_columns = jax.vmap(layer.product, -1, -1)(jnp.moveaxis(x, 0, -1))
    assert in_columns.dtype == dtype
    got = jnp.moveaxis(in_columns, -1, 0).astype(jnp.float32)
    atol = rtol * float(np.abs(want).max())
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


@jax.jit
def steps(graphdef, params, cache, tokens_BT):
    """Two tokens a slot, decoded one after the other: hidden states, and the cache."""
    model = nnx.merge(graphdef, params)
    live_B, states = jnp.ones(len(tokens_BT), bool), []
    for t in range(tokens_BT.shape[1]):
        length_B = jnp.full(len(tokens_BT), 7 + t)  # the second is on another page
        x_BD, cache = model.decode(tokens_BT[:, t], cache, TABLE_BJ, length_B, live_B)
        states.append(x_BD)
    return jnp.stack(states), cache


@pytest.mark.parametrize("family", CONFIGS)
def test_decoding_is_that_of_the_stacked_weights(family):
    """With biases, norms of queries and keys, and repeated heads."""
    graphdef, params = nnx.split(model := decoder(family))
    apart = make_sync(graphdef)(params)
    assert isinstance(apart["layers"]["q"].get_value(), PerLayer)
    cache = init_cache(model.cfg, pages=PAGES, page=PAGE)
    tokens_BT = np.array([[3, 9], [11, 30], [25, 2]], np.int32)
    want, want_cache = steps(graphdef, params, cache, tokens_BT)
    got, got_cache = steps(graphdef, apart, cache, tokens_BT)
    np.testing.assert_allclose(got, want, atol=2e-5)
    np.testing.assert_allclose(got_cache.k, want_cache.k, atol=2e-5)
    assert np.abs(want[1] - want[0]).max() > 0.1


@pytest.mark.parametrize("family", CONFIGS)
def test_prefill_is_that_of_the_stacked_weights(family):
    graphdef, params = nnx.split(decoder(family))
    apart = make_sync(graphdef)(params)
    tokens_BT = np.random.default_rng(0).integers(0, 40, (2, 13)).astype(np.int32)
    run = jax.jit(lambda params: nnx.merge(graphdef, params).prefill(tokens_BT))
    for got, want in zip(run(apart), run(params), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=2e-5)
