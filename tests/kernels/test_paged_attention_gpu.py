"""The GPU's paged attention: values interpreted on CPU, and the kernel lowered for CUDA."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh

from rlif_jax.errors import UserError
from rlif_jax.kernels.paged_attention.gpu import gpu_kernel_fits, paged_attention_gpu

H100 = {"device_kind": "NVIDIA H100 80GB HBM3", "num_cores": 132, "platform": "gpu"}
PAGES, LAYER = 9, 2
TABLE_BJ = np.array([[1, 2, 3, 4, 5], [1, 2, 6, 0, 0], [1, 7, 0, 0, 0], [0] * 5, [8, 0, 0, 0, 0]])


def arguments(H, K, A, page, dtype, seed=0):
    rng = np.random.default_rng(seed)
    q_BHA = jnp.asarray(2 * rng.normal(size=(5, H, A)), dtype)
    k_pages, v_pages = (jnp.asarray(rng.normal(size=(K, 3 * PAGES, page, A)), dtype) for _ in "kv")
    length_B = np.array([5 * page, 2 * page + 5, 2 * page, 0, 1])
    return q_BHA, k_pages, v_pages, jnp.int32(TABLE_BJ), jnp.int32(length_B)


def reference(q_BHA, k_pages, v_pages, table_BJ, length_B):
    """Softmax attention in float64, all slots at once."""
    (B, H, A), K = q_BHA.shape, k_pages.shape[0]
    q_BKGA = np.asarray(q_BHA, np.float64).reshape(B, K, H // K, A)
    k_KBTA, v_KBTA = (
        np.asarray(x, np.float64)[:, table_BJ].reshape(K, B, -1, A) for x in (k_pages, v_pages)
    )
    z_BKGT = np.einsum("BKGA,KBTA->BKGT", q_BKGA, k_KBTA) * A**-0.5
    live = np.arange(z_BKGT.shape[-1]) < np.asarray(length_B)[:, None, None, None]
    p_BKGT = np.where(live, np.exp(z_BKGT - z_BKGT.max(-1, keepdims=True)), 0.0)
    total_BKG1 = np.maximum(p_BKGT.sum(-1, keepdims=True), 1e-300)  # a slot of no tokens: zeros
    return np.einsum("BKGT,KBTA->BKGA", p_BKGT / total_BKG1, v_KBTA).reshape(B, H, A)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("H, K, A, page", [(12, 2, 128, 16), (9, 3, 64, 16), (4, 4, 32, 64)])
def test_values(H, K, A, page, dtype):
    """Lengths that end within a page and a block, pages that slots share, a layer further on."""
    q_BHA, k_pages, v_pages, table_BJ, length_B = arguments(H, K, A, page, dtype)
    out_BHA = jax.jit(paged_attention_gpu, static_argnames="interpret")(
        q_BHA, k_pages, v_pages, table_BJ, length_B, LAYER * PAGES, interpret=True
    )
    assert out_BHA.dtype == dtype
    expected_BHA = reference(q_BHA, k_pages, v_pages, TABLE_BJ + LAYER * PAGES, length_B)
    # bfloat16: the query, the weights, the parts and the output are each rounded once.
    rtol, atol = {"float32": (1e-5, 1e-5), "bfloat16": (4 * 2**-8, 2**-7)}[dtype]
    np.testing.assert_allclose(np.asarray(out_BHA, np.float32), expected_BHA, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_lowers_for_cuda(dtype):
    known = inspect.signature(AbstractDevice).parameters  # JAX 0.9 has no platform
    h100 = AbstractDevice(**{name: value for name, value in H100.items() if name in known})
    lowering = export.export(
        jax.jit(paged_attention_gpu),
        platforms=["cuda"],
        disabled_checks=[export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")],
    )
    # Triton lowers for a device. Where there is none, an abstract mesh names it.
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=h100)):
        exported = lowering(*arguments(12, 2, 128, 64, dtype), 0)
    assert "__gpu$xla.gpu.triton" in exported.mlir_module()


def test_float32_is_not_multiplied_in_tf32():
    jaxpr = str(jax.make_jaxpr(paged_attention_gpu)(*arguments(12, 2, 128, 16, "float32"), 0))
    assert jaxpr.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 2  # q.k and p.v


def test_what_does_not_fit():
    assert gpu_kernel_fits(12, 2, 128, 64, jnp.bfloat16)
    assert not gpu_kernel_fits(12, 2, 80, 64, jnp.bfloat16)
    assert not gpu_kernel_fits(12, 2, 128, 48, jnp.bfloat16)
    assert not gpu_kernel_fits(12, 2, 128, 64, jnp.int8)
    assert not gpu_kernel_fits(12, 2, 256, 64, jnp.float32)
    assert not gpu_kernel_fits(7, 2, 128, 64, jnp.bfloat16)
    with pytest.raises(UserError, match=r"bfloat16 cache has pages of 16 tokens.*width 80"):
        paged_attention_gpu(*arguments(4, 2, 80, 16, "bfloat16"), 0)
