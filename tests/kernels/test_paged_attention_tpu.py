"""The TPU's paged attention and token write: values interpreted on CPU, and compiled for a v5e."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rlif_jax.errors import UserError
from rlif_jax.kernels.paged_attention import tpu as paged
from rlif_jax.planning.traffic import bytes_per_step, collectives_in_loops
from rlif_jax.sharding import MESH_AXES

A = 128


def pools(rng, K, pages, page, width=A, dtype=jnp.bfloat16):
    return tuple(jnp.asarray(rng.normal(size=(K, pages, page, width)), dtype) for _ in "kv")


def reference(q_BHA, k_pages, v_pages, table_BJ, length_B):
    """Softmax attention in float64, slot by slot and head by head."""
    q_BHA, k_pages, v_pages = (np.asarray(x, np.float64) for x in (q_BHA, k_pages, v_pages))
    B, H, A = q_BHA.shape
    out_BHA = np.zeros((B, H, A))
    for b, h in np.ndindex(B, H):
        kv, n = h // (H // k_pages.shape[0]), int(length_B[b])
        k_TA, v_TA = (x[kv, table_BJ[b]].reshape(-1, A)[:n] for x in (k_pages, v_pages))
        if n:
            p_T = np.exp((z := k_TA @ q_BHA[b, h] * A**-0.5) - z.max())
            out_BHA[b, h] = p_T @ v_TA / p_T.sum()
    return out_BHA


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("H, K, A", [(12, 2, 128), (7, 1, 128), (8, 1, 64), (4, 2, 128)])
def test_values(H, K, A, dtype, monkeypatch):
    """Lengths that end within a page and a block, pages that slots share, a layer further on."""
    monkeypatch.setattr(paged, "_BLOCK_TOKENS", 32)  # several blocks a slot, and a part of one
    rng = np.random.default_rng(0)
    page, pages, layer = 16, 9, 2
    k_pages, v_pages = pools(rng, K, 3 * pages, page, A)
    q_BHA = jnp.asarray(2 * rng.normal(size=(5, H, A)), dtype)
    table_BJ = np.array(
        [[1, 2, 3, 4, 5], [1, 2, 6, 0, 0], [1, 7, 0, 0, 0], [0] * 5, [8, 0, 0, 0, 0]]
    )
    length_B = np.array([80, 37, 32, 0, 1])
    with pltpu.force_tpu_interpret_mode():
        out_BHA = jax.jit(paged.paged_attention_tpu)(
            q_BHA,
            *(jnp.pad(x, [(0, 0)] * 3 + [(0, 128 - A)]) for x in (k_pages, v_pages)),
            jnp.int32(table_BJ),
            jnp.int32(length_B),
            layer * pages,
        )
    assert out_BHA.dtype == dtype
    expected_BHA = reference(q_BHA, k_pages, v_pages, table_BJ + layer * pages, length_B)
    # The output is rounded once, to the query's dtype.
    tolerance = {"float32": 2e-6, "bfloat16": 2**-8}[dtype]
    np.testing.assert_allclose(
        np.asarray(out_BHA, np.float32), expected_BHA, rtol=tolerance, atol=2e-6
    )


@pytest.mark.parametrize("slots_a_block, A", [(1, 128), (3, 64), (6, 128)])
def test_write(slots_a_block, A, monkeypatch):
    """A row each at the ends and in the middle of tiles; idle slots all write to page 0."""
    K, page = 2, 32
    monkeypatch.setattr(paged, "_WRITE_BYTES", slots_a_block * 2 * K * 16 * 128 * 2)
    rng = np.random.default_rng(1)
    k_pages, v_pages = pools(rng, K, 20, page)
    k_BKA, v_BKA = (jnp.asarray(rng.normal(size=(6, K, A)), jnp.float32) for _ in "kv")
    page_B, row_B = jnp.int32([3, 7, 0, 1, 19, 0]), jnp.int32([0, 31, 0, 15, 16, 0])
    with pltpu.force_tpu_interpret_mode():
        written = paged.write_token_tpu(k_pages, v_pages, k_BKA, v_BKA, page_B, row_B)
    for got, pool, new_BKA in zip(written, (k_pages, v_pages), (k_BKA, v_BKA), strict=True):
        new_KBA = new_BKA.swapaxes(0, 1).astype(pool.dtype)
        expected = pool.at[:, page_B, row_B, :A].set(new_KBA).at[:, page_B, row_B, A:].set(0)
        np.testing.assert_array_equal(got[:, 1:], expected[:, 1:])
        assert np.isfinite(np.asarray(got[:, 0], np.float32)).all()  # what it holds does not matter


@pytest.mark.parametrize(
    "change",
    [{"width": 64}, {"page": 8}, {"dtype": "float32"}, {"heads": 7}, {"table_entries": 2**18}],
)
def test_what_fits(change):
    form = dict(heads=12, kv_heads=2, width=128, page=16, dtype="bfloat16", table_entries=64)
    assert paged.tpu_kernel_fits(**form)
    assert not paged.tpu_kernel_fits(**(form | change))


@pytest.mark.parametrize("head_dim, width", [(64, 128), (128, 128), (80, 128), (192, 256)])
def test_head_width(head_dim, width):
    assert paged.tpu_head_width(head_dim) == width


def test_a_cache_that_does_not_fit_is_refused():
    k_pages, v_pages = pools(np.random.default_rng(0), 1, 3, 16, dtype=jnp.float32)
    q_BHA, table_BJ = jnp.zeros((1, 2, A)), jnp.zeros((1, 2), jnp.int32)
    length_B = jnp.ones(1, jnp.int32)
    with pytest.raises(UserError, match=r"bfloat16 cache.*float32 cache has pages of 16"):
        paged.paged_attention_tpu(q_BHA, k_pages, v_pages, table_BJ, length_B, 0)
    wide_pages, _ = pools(np.random.default_rng(0), 1, 3, 16, 256)
    with pytest.raises(UserError, match="heads of width 256 for 2 query heads of width 128"):
        paged.paged_attention_tpu(q_BHA, wide_pages, wide_pages, table_BJ, length_B, 0)
    with pytest.raises(UserError, match="plain kernel"):
        paged.write_token_tpu(
            k_pages, v_pages, q_BHA[:, :1], q_BHA[:, :1], length_B, jnp.zeros(1, jnp.int32)
        )


# Weights and pools too large for the 128 MiB of on-chip memory, where XLA would put them else.
L, D, V, PAGE, J = 16, 2048, 2**16, 64, 128
B = 16  # slots of all four devices; so are H and K below


def decode_loop(H, K, mesh, scatter):
    """A decode loop's bones: projections, write and attention of L layers, until all slots end."""
    pages = 1 + B // 2 * J

    def local(q_BHA, k_BKA, v_BKA, k_pages, v_pages, table_BJ, length_B, first_page):
        page_B = jnp.take_along_axis(table_BJ, (length_B - 1)[:, None] // PAGE, 1)[:, 0]
        at = page_B + first_page, (length_B - 1) % PAGE
        if scatter:
            k_pages, v_pages = (
                pool.at[:, *at].set(new_BKA.swapaxes(0, 1))
                for pool, new_BKA in ((k_pages, k_BKA), (v_pages, v_BKA))
            )
        else:
            k_pages, v_pages = paged.write_token_tpu(k_pages, v_pages, k_BKA, v_BKA, *at)
        out = paged.paged_attention_tpu(q_BHA, k_pages, v_pages, table_BJ, length_B, first_page)
        return out, k_pages, v_pages

    rows, heads, pool = P("data"), P("data", "tensor"), P("tensor", "data")
    attend = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(heads, heads, heads, pool, pool, rows, rows, P()),
        out_specs=(heads, pool, pool),
        check_vma=False,
    )

    def run(head_VD, w_LDHA, w_LHAD, x_BD, k_pages, v_pages, table_BJ, length_B):
        def layer(carry, scanned):
            x_BD, k_pages, v_pages, length_B = carry
            w_DHA, w_HAD, first_page = scanned
            y_BHA = jnp.einsum("BD,DHA->BHA", x_BD, w_DHA)
            k_BKA, v_BKA = (1 + y_BHA[:, :K]).astype(jnp.bfloat16), y_BHA[:, :K]
            out_BHA, k_pages, v_pages = attend(
                y_BHA, k_BKA, v_BKA, k_pages, v_pages, table_BJ, length_B, first_page
            )
            x_BD += jnp.einsum("BHA,HAD->BD", out_BHA, w_HAD)
            return (x_BD, k_pages, v_pages, length_B), None

        def step(state):
            x_BD, k_pages, v_pages, length_B = state
            scanned = (w_LDHA, w_LHAD, pages * jnp.arange(L, dtype=jnp.int32))
            carry, _ = lax.scan(layer, (x_BD, k_pages, v_pages, length_B + 1), scanned)
            logits_BV = jnp.einsum("BD,VD->BV", carry[0], head_VD)
            return (carry[0] + logits_BV.max(-1, keepdims=True), *carry[1:])

        return lax.while_loop(
            lambda state: (state[3] < J * PAGE).any(), step, (x_BD, k_pages, v_pages, length_B)
        )

    def shape(dims, spec, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, spec))

    pool = shape((K, 2 * L * pages, PAGE, A), pool)
    lowered = jax.jit(run, donate_argnums=(4, 5)).lower(
        shape((V, D), P("tensor")),
        shape((L, D, H, A), P(None, None, "tensor")),
        shape((L, H, A, D), P(None, "tensor")),
        shape((B, D), rows),
        pool,
        pool,
        shape((B, J), rows, jnp.int32),
        shape((B,), rows, jnp.int32),
    )
    return lowered.compile(), pool.size * 2 // 4


@pytest.fixture(scope="module")
def mesh():
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    devices = np.asarray(topology.devices).reshape(2, 1, 1, 2)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 4)


@pytest.mark.parametrize("H, K", [(24, 4), (14, 2), (64, 16)])
def test_a_step_on_tpu_reads_the_weights_and_the_live_cache_and_no_more(mesh, H, K):
    """The local heads of R1-Distill-1.5B, Coder-7B split four ways, and Qwen3-4B."""
    compiled, pool_bytes = decode_loop(H, K, mesh, scatter=False)
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= 2 * pool_bytes
    weights = (2 * L * D * H * A + V * D) * 2 // 2
    # Weights may be laid out anew before the loop; of the pools nothing may.
    assert memory.temp_size_in_bytes < weights + pool_bytes // 16
    live = 2 * (B // 2) * (K // 2) * J * PAGE * A * 2  # of one layer, slots full
    write = 2 * 2 * (B // 2) * (K // 2) * 16 * A * 2
    moved = bytes_per_step(compiled.as_text(), {"paged_attention": live, "write_token": write})
    assert 1 <= moved / (weights + L * live) < 1.1
    assert max(size for _, size in collectives_in_loops(compiled.as_text())) < B * H * A * 4


def test_a_copy_of_the_pool_would_be_counted(mesh):
    """XLA's scatter copies the pool, which is why it is not used: the count must say so."""
    compiled, pool_bytes = decode_loop(24, 4, mesh, scatter=True)
    assert bytes_per_step(compiled.as_text(), {"paged_attention": 0}) > L * pool_bytes


def test_the_kernel_multiplies_in_bfloat16_whatever_jax_is_told():
    """Mosaic compiles no other precision for bfloat16 keys."""
    one = jax.sharding.SingleDeviceSharding(
        topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
    )

    def shape(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=one)

    pool = shape((2, 64, 64, A), jnp.bfloat16)
    query, table = shape((8, 12, A), jnp.float32), shape((8, 8), jnp.int32)
    with jax.default_matmul_precision("highest"):
        lowered = jax.jit(paged.paged_attention_tpu).lower(
            query, pool, pool, table, shape((8,), jnp.int32), shape((), jnp.int32)
        )
        lowered.compile()
