"""Parameters on their way from the trainer to the sampler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.per_layer import PerLayer
from rlif_jax.run.digest import by_path
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import make_mesh, param_shardings

CFG = ModelConfig(
    vocab_size=41,
    embed=32,
    ffn=48,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    qkv_bias=True,
    qk_norm=True,
    tied=False,
)
NORMS = {"attn_norm", "ffn_norm", "q_norm", "k_norm", "final_norm"}
AXES = {
    "embed": P("tensor", None),
    "head": P("tensor", None),
    "q": P(None, None, "tensor", None),
    "k": P(None, None, "tensor", None),
    "v": P(None, None, "tensor", None),
    "q_bias": P(None, "tensor", None),
    "o": P(None, "tensor", None, None),
    "gate": P(None, None, "tensor"),
    "up": P(None, None, "tensor"),
    "down": P(None, "tensor", None),
    "attn_norm": P(None, None),
    "final_norm": P(None),
}


def split(**changed):
    return nnx.split(Decoder.init(dataclasses.replace(CFG, **changed), jax.random.key(0)))


def named(params) -> dict[str, jax.Array]:
    """Arrays by the last part of their names, all layers together."""
    return {
        name.split(".")[-1]: x.joined() if isinstance(x, PerLayer) else x
        for name, x in by_path(params).items()
    }


def test_what_needs_no_change_comes_back_itself():
    graphdef, params = split()
    sync = make_sync(graphdef)
    mesh = make_mesh(tensor=2)
    with jax.set_mesh(mesh):  # nothing is split over fsdp here: both layouts are the same
        placed = jax.device_put(params, param_shardings(params, mesh))
        assert all(
            a is b for a, b in zip(*map(jax.tree.leaves, (sync(placed), placed)), strict=True)
        )


def test_a_single_cpu_gets_an_array_for_each_layer():
    """Once: what is laid out already comes back itself, and so do arrays of no layer."""
    graphdef, params = split()
    sync = make_sync(graphdef)
    synced = sync(params)
    for name, param in synced["layers"].items():
        apart = param.get_value()
        assert isinstance(apart, PerLayer) and len(apart.arrays) == CFG.layers, name
        assert apart.stacked is params["layers"][name].get_value()
        np.testing.assert_array_equal(apart.joined(), apart.stacked)
    assert synced["layers"]["gate"].get_value().arrays[0].shape == (CFG.ffn, CFG.embed)
    for name in ("embed", "head", "final_norm"):
        assert synced[name].get_value() is params[name].get_value()
    again = sync(synced)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (again, synced)), strict=True))


def test_all_but_norms_are_rounded_once_to_the_activations():
    graphdef, params = split(dtype="bfloat16")
    sync = make_sync(graphdef)
    before, after = named(params), named(synced := sync(params))
    assert NORMS < after.keys() == before.keys()
    for name, value in after.items():
        want = before[name] if name in NORMS else before[name].astype(jnp.bfloat16)
        assert value.dtype == want.dtype, name
        np.testing.assert_array_equal(value.astype(jnp.float32), want.astype(jnp.float32))
    assert before["q"].dtype == jnp.float32  # the trainer keeps its own
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (sync(synced), synced)), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decode_step_gathers_nothing_over_fsdp(dtype):
    graphdef, params = split(dtype=dtype)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, param_shardings(params, mesh))
        after = named(make_sync(graphdef)(placed))
    assert "fsdp" in named(placed)["q"].sharding.spec
    for name, value in after.items():
        assert "fsdp" not in str(value.sharding.spec), name
        want = named(params)[name]
        want = want if name in NORMS else want.astype(dtype)
        np.testing.assert_array_equal(np.asarray(value), np.asarray(want))
    for name, spec in AXES.items():
        target = jax.sharding.NamedSharding(mesh, spec)
        assert after[name].sharding.is_equivalent_to(target, after[name].ndim), name


def test_the_same_stages_serve_every_step_and_every_mesh():
    graphdef, params = split(dtype="bfloat16")
    sync = make_sync(graphdef)
    sync(params)
    with jax.set_mesh(mesh := make_mesh(data=2, fsdp=2, tensor=2)):
        placed = jax.device_put(params, param_shardings(params, mesh))
        twice = jax.tree.map(lambda x: 2 * x, placed)
        for trained, factor in ((placed, 1), (twice, 2)):
            got = named(sync(trained))["gate"]
            want = (factor * named(params)["gate"]).astype(jnp.bfloat16)
            np.testing.assert_array_equal(np.asarray(got), np.asarray(want))
