"""Stages compiled for a slice that is only described."""

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rlif_jax.planning.ahead import (
    Ahead,
    ExceedsMemory,
    compile_with_text,
    local_bytes,
    made,
    mesh_of,
    total_bytes,
    with_sharding,
)


@pytest.fixture(scope="module")
def mesh():
    return mesh_of("v5e:2x4", data=2, fsdp=2, tensor=2)


def test_a_mesh_has_the_chips_of_the_slice(mesh):
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}
    assert {device.platform for device in mesh.devices.flat} == {"tpu"}
    with pytest.raises(ValueError, match="must equal the product"):
        mesh_of("v5e:2x4", data=3)


def test_a_v4_is_one_device_a_chip():
    assert mesh_of("v4:2x2x2", fsdp=8).devices.size == 8


def test_threads_describe_slices_one_after_the_other(mesh, monkeypatch):
    """The first loads libtpu, which two at once must not."""
    inside, most = 0, 0
    described = topologies.get_topology_desc

    def slow(**slice_):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        inside -= 1
        return described(**slice_)

    monkeypatch.setattr(topologies, "get_topology_desc", slow)
    with ThreadPoolExecutor(4) as pool:
        meshes = list(pool.map(lambda _: mesh_of("v5e:2x2", fsdp=4), range(4)))
    assert [one.devices.size for one in meshes] == [4] * 4
    assert most == 1


def test_one_sharding_or_one_for_each(mesh):
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    tree = {"a": jnp.zeros((4, 3)), "b": jnp.zeros(8, jnp.bfloat16)}
    assert {x.sharding for x in with_sharding(tree, split).values()} == {split}
    each = with_sharding(tree, {"a": split, "b": whole})
    assert (each["a"].sharding, each["b"].sharding) == (split, whole)
    assert (each["b"].shape, each["b"].dtype) == ((8,), jnp.bfloat16)
    assert local_bytes(each) == 4 * 3 * 4 // 2 + 8 * 2


def test_stages_are_compiled_one_after_the_other(mesh, monkeypatch):
    """As a factory builds them: `jax.jit` with donation, each given what the one before returns."""

    def make():
        return jax.jit(lambda x: x + 1, donate_argnums=0), jax.jit(lambda x: (x @ x.T).sum(0))

    split = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        x = made(lambda: jax.lax.with_sharding_constraint(jnp.zeros((256, 512)), split))
        assert x.sharding.is_equivalent_to(split, 2)
        ahead = Ahead()
        with monkeypatch.context() as patch:
            patch.setattr(jax, "jit", ahead)
            add, multiply = make()
        y = add(x)
        assert (y.shape, y.dtype) == ((256, 512), jnp.float32)
        assert multiply(y).shape == (256,)
    first, second = ahead.compiled
    assert len(first.as_text()) > 0
    # The sum is written where its argument was: it counts once, with what little XLA needs beside.
    share = local_bytes(x)
    assert share == 256 * 512 * 4 // 2
    assert share <= total_bytes(first) < 1.1 * share
    assert total_bytes(second) >= share


def test_a_stage_without_room_names_its_largest_buffers(mesh):
    """An argument, a product and a result of 8 GiB each, on chips of 15.75."""
    whole = NamedSharding(mesh, P())
    x = jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32, sharding=whole)
    lowered = jax.jit(lambda x: jnp.tanh(x @ x.T) @ x, out_shardings=whole).lower(x)
    with pytest.raises(ExceedsMemory) as refusal:
        compile_with_text(lowered)
    assert refusal.value.needed_gib == 24
    assert sorted(refusal.value.largest) == [
        (8.0, "bf16[65536,65536]", "jit(<lambda>)/dot_general"),
        (8.0, "f32[65536,32768]", "x"),
        (8.0, "f32[65536,32768]", "x"),
    ]
