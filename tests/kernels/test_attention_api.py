"""Attention as the model calls it: on meshes, under remat policies, by name, and its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from support.packed_rows import attention_arrays, segments_of

from rlif_jax import sharding
from rlif_jax.errors import UserError
from rlif_jax.kernels.attention.api import attention, choose
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.planning.ahead import mesh_of

ROWS = [[9, -7, -3, 0, 4, -1], [0, 3, -20], [30], [0], [2, -1, 5, 1], [1] * 30, [20, -10], [11, 2]]


def gradients(attend, arrays, segments):
    """What is read, and the gradients of a sum of it."""

    def total(q, k, v, weight, segments):
        out = attend(q, k, v, segments)
        return (out * weight).sum(), out

    (_, out), found = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(*arrays, segments)
    return out, *found


@pytest.mark.parametrize("rows", [8, 3])
@pytest.mark.parametrize(
    "mesh, H, K",
    [
        ({"data": 2, "fsdp": 2, "tensor": 2}, 4, 2),
        ({"fsdp": 2, "tensor": 4}, 8, 2),  # fewer key/value heads than devices
        ({"data": 4, "tensor": 2}, 6, 3),  # devices that do not divide them
        ({"data": 2, "tensor": 4}, 6, 2),  # devices that do not divide the query heads
    ],
)
def test_eight_devices_equal_one(mesh, H, K, rows):
    """Rows that the row shards divide, and rows that are on every device."""
    segments = segments_of(ROWS[:rows], T=30)
    arrays = attention_arrays(R=rows, T=30, H=H, K=K, A=8)
    one = gradients(functools.partial(attention, implementation="plain"), arrays, segments)
    with jax.set_mesh(sharding.make_mesh(**mesh)):
        eight = gradients(attention, arrays, segments)
    for name, x, y in zip(("out", "dq", "dk", "dv"), eight, one, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=3e-6 * np.abs(y).max(), err_msg=name)


def test_each_device_has_its_own_rows_and_heads():
    segments = segments_of(ROWS, T=30)
    arrays = attention_arrays(R=8, T=30, H=4, K=1, A=8)
    with jax.set_mesh(sharding.make_mesh(data=2, fsdp=2, tensor=2)):
        out = jax.jit(attention)(*arrays[:3], segments)
    assert {shard.data.shape for shard in out.addressable_shards} == {(2, 30, 2, 8)}


def layers(policy, arrays, segments):
    """The gradient through three layers under `lax.scan`, rematerialised by a policy."""
    q, k, v, weight = arrays

    def layer(x, w):
        out = attention(jnp.sin(x * w), jnp.sin(k * w), v, segments)
        return x + out, None

    layer = layer if policy is None else jax.checkpoint(layer, policy=policy)

    def total(q, w):
        return (jax.lax.scan(layer, q, w)[0] * weight).sum()

    return jax.grad(total, (0, 1)), (q, jnp.float32([0.5, 1.0, 1.5]))


POLICIES = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "names": jax.checkpoint_policies.save_only_these_names("attention_out", "attention_lse"),
}


@pytest.mark.parametrize("mesh", [{}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize("policy", POLICIES)
def test_layers_under_remat(policy, mesh):
    arrays, segments = attention_arrays(R=8, T=30, H=4, K=2, A=8), segments_of(ROWS, T=30)
    with jax.set_mesh(sharding.make_mesh(**mesh)):
        f, args = layers(None, arrays, segments)
        want = jax.jit(f)(*args)
        f, args = layers(POLICIES[policy], arrays, segments)
        got = jax.jit(f)(*args)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_saved_by_name_it_is_not_computed_again():
    """Loops over key blocks: forward, backward, and forward again if nothing is saved."""
    arrays, segments = attention_arrays(R=8, T=30, H=4, K=2, A=8), segments_of(ROWS, T=30)

    def loops(policy):
        f, args = layers(POLICIES[policy], arrays, segments)
        return str(jax.make_jaxpr(f)(*args)).count(" while[")

    assert (loops("nothing"), loops("names")) == (3, 2)


def test_memory_grows_with_the_length():
    """Four times the columns: not sixteen times the temporaries, as all scores would have."""

    def temporaries(T, implementation):
        shapes = [jax.ShapeDtypeStruct((1, T, heads, 32), jnp.float32) for heads in (4, 2, 2)]

        def total(q, k, v, own):
            return attention(q, k, v, Segments(own), implementation=implementation).sum()

        own = jax.ShapeDtypeStruct((1, T), jnp.int32)
        compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(*shapes, own).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(4096, "blocked") < 4.5 * temporaries(1024, "blocked")
    assert temporaries(2048, "plain") > 15 * temporaries(2048, "blocked")


PACKED = Segments(jnp.ones((1, 4), jnp.int32))
SHARED = Segments(PACKED.own, PACKED.own)
LONG_SHARED = Segments(jnp.ones((1, 2**15 + 1), jnp.int32), jnp.ones((1, 2**15 + 1), jnp.int32))
SINGLE = Segments.of(jnp.ones((1, 4), bool))


@pytest.mark.parametrize(
    "platform, dtype, head_dim, segments, chosen",
    [
        ("cpu", "bfloat16", 64, PACKED, "blocked"),
        ("tpu", "bfloat16", 64, PACKED, "splash"),
        ("tpu", "bfloat16", 128, SINGLE, "splash"),
        ("tpu", "bfloat16", 128, SHARED, "splash"),
        ("tpu", "bfloat16", 128, LONG_SHARED, "blocked"),
        ("tpu", "float32", 128, PACKED, "blocked"),
        ("gpu", "bfloat16", 128, SINGLE, "cudnn"),
        ("gpu", "bfloat16", 128, PACKED, "blocked"),
        ("gpu", "float32", 128, SINGLE, "blocked"),
        ("gpu", "bfloat16", 256, SINGLE, "blocked"),
    ],
)
def test_the_fastest_that_can(platform, dtype, head_dim, segments, chosen):
    assert choose("auto", platform, dtype, head_dim, segments) == chosen
    assert choose(chosen, platform, dtype, head_dim, segments) == chosen


@pytest.mark.parametrize(
    "name, platform, dtype, head_dim, segments, reason",
    [
        ("splash", "cpu", "bfloat16", 64, PACKED, "runs on TPUs.*'cpu'"),
        ("splash", "tpu", "float32", 64, PACKED, "activations are float32"),
        ("splash", "tpu", "bfloat16", 64, LONG_SHARED, "up to 32768 columns, and these have 32769"),
        ("cudnn", "tpu", "bfloat16", 64, SINGLE, "runs on NVIDIA GPUs.*'tpu'"),
        ("cudnn", "gpu", "float32", 64, SINGLE, "activations are float32"),
        ("cudnn", "gpu", "bfloat16", 60, SINGLE, "these have 60"),
        ("cudnn", "gpu", "bfloat16", 64, PACKED, "may hold several"),
    ],
)
def test_what_cannot_be_used_is_refused(name, platform, dtype, head_dim, segments, reason):
    with pytest.raises(UserError, match=f'"{name}" cannot be used here: it .*{reason}.*"blocked"'):
        choose(name, platform, dtype, head_dim, segments)


def test_the_platform_is_that_of_the_mesh():
    """A stage for a TPU slice is compiled in a process that has CPUs alone."""
    assert sharding.platform() == "cpu"
    with jax.set_mesh(sharding.make_mesh(data=2)):
        assert sharding.platform() == "cpu"
        assert jax.jit(lambda x: x if sharding.platform() == "cpu" else -x)(1) == 1
    gpu = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((2,), ("data",), abstract_device=gpu)):
        assert sharding.platform() == "gpu"
    with jax.set_mesh(mesh_of("v5e:2x2", data=4)):
        assert sharding.platform() == "tpu"
