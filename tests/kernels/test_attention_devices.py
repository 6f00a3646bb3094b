"""Attention compiled for TPU slices and lowered for CUDA, without either."""

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, NamedSharding, PartitionSpec
from support.packed_rows import attention_arrays

from rlif_jax.kernels.attention.api import attention
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.planning.ahead import mesh_of

H100 = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
MODELS = {"1.5B": (12, 2, 128), "4B": (32, 8, 128), "7B": (28, 4, 128), "SmolLM2": (9, 3, 64)}


def gradient(q, k, v, own, prefix):
    """Gradients of a sum of squares of what packed rows read."""

    def total(q, k, v):
        return (attention(q, k, v, Segments(own, prefix)).astype(jnp.float32) ** 2).sum()

    return jax.grad(total, (0, 1, 2))(q, k, v)


def compiled(topology, T, model, dtype, shared):
    """The gradient for one row a chip of a slice with four."""
    mesh = mesh_of(topology, data=4)

    def rows(*shape, dtype=dtype):
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        return jax.ShapeDtypeStruct((4, T, *shape), dtype, sharding=sharding)

    H, K, A = MODELS[model]
    own = rows(dtype=jnp.int32)
    with jax.set_mesh(mesh):
        arrays = rows(H, A), rows(K, A), rows(K, A), own, own if shared else None
        return jax.jit(gradient).lower(*arrays).compile()


@pytest.mark.parametrize("shared", [False, True])
def test_a_slice_runs_splash_attention(shared):
    """A length that no block divides, and heads narrower than a vector register."""
    text = compiled("v5e:2x2", 700, "SmolLM2", "bfloat16", shared).as_text()
    assert all(name in text for name in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"))


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shared", [False, True])
def test_long_rows_fit_and_grow_with_the_length(topology, model, shared):
    """From 10,240 to 18,432 columns temporaries grow as their number does."""
    short, long = (
        compiled(topology, T, model, "bfloat16", shared).memory_analysis().temp_size_in_bytes
        for T in (10_240, 18_432)
    )
    H, K, A = MODELS[model]
    # A few arrays like q in float32, a head at least as wide as a register; the kernel's logsumexp
    # is one of them. Scores in one byte would be four to eighteen times as much.
    assert short < long < 4 * 18_432 * (H + shared * K) * max(A, 128) * 4


@pytest.mark.slow
def test_float32_compiles_for_a_slice_in_blocks():
    text = compiled("v5e:2x2", 1536, "1.5B", "float32", shared=True).as_text()
    assert "splash" not in text


def test_cudnn_lowers_for_cuda(monkeypatch):
    """Rows of one sequence each reach cuDNN, forward and backward, without scores or bias."""
    # JAX asks the installed cuDNN for its version; here there is none.
    monkeypatch.setattr(
        "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000
    )
    T, H, K, A = 192, 12, 2, 128
    q, k, v, _ = (x.astype(jnp.bfloat16) for x in attention_arrays(R=2, T=T, H=H, K=K, A=A))

    def total(q, k, v, mask):
        return attention(q, k, v, Segments.of(mask)).astype(jnp.float32).sum()

    lowering = export.export(
        jax.jit(jax.grad(total, (0, 1, 2))),
        platforms=["cuda"],
        disabled_checks=[
            export.DisabledSafetyCheck.custom_call(f"__cudnn$fmhaSoftmax{way}")
            for way in ("", "Backward")
        ],
    )
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=H100)):
        text = lowering(q, k, v, jnp.ones((2, T), bool)).mlir_module()
    assert "__cudnn$fmhaSoftmax(" in text and "__cudnn$fmhaSoftmaxBackward(" in text
    assert f"{T}x{T}x" not in text
