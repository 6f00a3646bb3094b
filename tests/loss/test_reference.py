"""The reference of the KL term: what keeping it takes, and that it scores as the model itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rlif_jax.kernels.token_stats.api import token_stats
from rlif_jax.loss.reference import kept_reference, on_devices
from rlif_jax.planning.ahead import local_bytes
from rlif_jax.sharding import make_mesh, param_shardings


@pytest.fixture
def spread(tiny):
    """The very small model in bfloat16, as a graph definition and parameters on eight devices."""
    graphdef, params, _ = tiny
    model = nnx.merge(graphdef, params)
    model.cfg = dataclasses.replace(model.cfg, dtype="bfloat16")
    graphdef, params = nnx.split(model)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    return mesh, graphdef, jax.device_put(params, param_shardings(params, mesh))


@pytest.mark.parametrize("on_host", [False, True])
def test_the_reference_of_a_bfloat16_model_scores_as_the_model(spread, on_host):
    mesh, graphdef, params = spread
    reference = kept_reference(params, "bfloat16", on_host)
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(reference)}
    assert kinds == {"pinned_host" if on_host else "device"}
    assert 0.5 <= local_bytes(reference) / local_bytes(params) < 0.52
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 250, (4, 9)))

    @jax.jit
    def score(params):
        model = nnx.merge(graphdef, params)
        return token_stats(model(tokens), model.head_VD, tokens, 1.0, model.cfg.reachable)

    with jax.set_mesh(mesh):
        there = on_devices(reference)
        jax.tree.map(np.testing.assert_array_equal, score(there), score(params))
    same = jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim), there, params)
    assert all(jax.tree.leaves(same))


def test_the_reference_outlives_parameters_that_an_update_uses_up(spread):
    params = jax.tree.map(jnp.copy, spread[2])
    reference = kept_reference(params, "float32")
    before = jax.device_get(reference)
    jax.tree.map(lambda x: x.delete(), params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(reference), before)
    jax.tree.map(lambda x, y: x is y or pytest.fail("copied"), on_devices(reference), reference)
