"""Attention over pages: the plain kernel's values, and what is written to each kernel's pool."""

import contextlib
import functools
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from rlif_jax.kernels.attention.plain import plain_attention
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.kernels.paged_attention.api import (
    choose_kernel,
    copy_pages,
    head_width,
    page_axis,
    paged_attention,
    pool_shapes,
    write_prompt,
    write_token,
)

KERNELS = ("plain", "tpu", "gpu")
PAGES, LAYERS = 12, 3
# Lengths that do not divide, with pages in no order: the first two slots share a page.
TABLE_BJ = np.array([[3, 9, 1, 5], [3, 2, 0, 0], [0, 0, 0, 0], [8, 11, 4, 0], [7, 0, 0, 0]])

attend = jax.jit(functools.partial(paged_attention, "plain"))


def lengths(page: int) -> np.ndarray:
    return np.array([4 * page, page + (page + 1) // 2, 0, 2 * page + 1, 1])


def pools(kernel: str, K: int, page: int, A: int, dtype="float32", seed: int = 0):
    """Random pools of keys and values: the same pages in each kernel's order of axes."""
    rng = np.random.default_rng(seed)
    shape = (LAYERS * PAGES, K, page, A)
    both = (jnp.asarray(rng.normal(size=shape), dtype) for _ in "kv")
    k, v = (jnp.moveaxis(pool, 0, page_axis(kernel)) for pool in both)
    k = k.swapaxes(2, 3) if kernel == "plain" else k
    assert (k.shape, v.shape) == pool_shapes(kernel, K, LAYERS * PAGES, page, A)
    return k, v


def in_order(kernel: str, k_pages, v_pages) -> list[np.ndarray]:
    """The pools as [S, K, page, A], float32."""
    k, v = (
        np.moveaxis(np.asarray(p, np.float32), page_axis(kernel), 0) for p in (k_pages, v_pages)
    )
    return [k.swapaxes(2, 3) if kernel == "plain" else k, v]


def dense(q_BHA, k_pages, v_pages, table_BJ, length_B):
    """The model's own attention in float32, over keys and values gathered into rows."""

    def rows(pool) -> jax.Array:
        BJKSA = jnp.asarray(pool[table_BJ])
        B, J, K, S, A = BJKSA.shape
        return BJKSA.transpose(0, 1, 3, 2, 4).reshape(B, J * S, K, A)

    k_BSKA, v_BSKA = map(rows, in_order("plain", k_pages, v_pages))
    B, S, _, _ = k_BSKA.shape
    q_BSHA = jnp.repeat(q_BHA[:, None].astype(jnp.float32), S, axis=1)
    segments = Segments.of(jnp.arange(S) < jnp.asarray(length_B)[:, None])
    out_BSHA = plain_attention(q_BSHA, k_BSKA, v_BSKA, segments)
    last_B = np.maximum(length_B - 1, 0)  # the one query of a slot stands at its last token
    return np.asarray(out_BSHA)[np.arange(B), last_B]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("H, K, A, page", [(4, 2, 8, 5), (6, 1, 16, 1), (3, 3, 64, 16)])
def test_plain_equals_dense_attention(H, K, A, page, dtype):
    k_pages, v_pages = pools("plain", K, page, A, dtype)
    q_BHA = 2 * jax.random.normal(jax.random.key(1), (5, H, A), dtype)
    first = 2 * PAGES
    got = attend(q_BHA, k_pages, v_pages, jnp.asarray(TABLE_BJ), lengths(page), first)
    assert got.dtype == dtype
    want = dense(q_BHA, k_pages, v_pages, TABLE_BJ + first, lengths(page))
    rtol = {"float32": 1e-5, "bfloat16": 2**-8}[dtype]  # only the output is rounded
    atol = 1e-6
    np.testing.assert_allclose(np.asarray(got, np.float32), want, rtol=rtol, atol=atol)
    assert (np.asarray(got)[2] == 0).all()  # a slot of no tokens


@pytest.mark.parametrize("length", [1, 4, 5, 6, 16, 20])
def test_the_longest_slot_may_end_anywhere(length):
    q_BHA, pools_ = jax.random.normal(jax.random.key(1), (5, 4, 8)), pools("plain", 2, 5, 8)
    length_B = np.array([length, 0, 0, 0, 1])
    got = attend(q_BHA, *pools_, jnp.asarray(TABLE_BJ), length_B, PAGES)
    want = dense(q_BHA, *pools_, TABLE_BJ + PAGES, length_B)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_scores_of_any_size_and_types_that_differ():
    """Weights that underflow beside the largest, and a float32 query of a bfloat16 cache."""
    k_pages, v_pages = pools("plain", 2, 5, 8, "bfloat16")
    q_BHA = 300 * jax.random.normal(jax.random.key(1), (5, 4, 8)).astype(jnp.bfloat16)
    q_BHA = q_BHA.astype(jnp.float32)
    got = attend(q_BHA, k_pages, v_pages, jnp.asarray(TABLE_BJ), lengths(5), 0)
    assert got.dtype == jnp.float32
    want = dense(q_BHA, k_pages, v_pages, TABLE_BJ, lengths(5))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)  # scores are in the thousands
    assert np.abs(np.asarray(got)).max() > 1


def test_no_bit_of_a_slot_hangs_on_others():
    """Neither on their lengths, longer or shorter, nor on pages and rows that are not its own."""
    page, slot = 5, 1
    q_BHA = jax.random.normal(jax.random.key(1), (5, 4, 8))
    own = attend(q_BHA, *pools("plain", 2, page, 8), jnp.asarray(TABLE_BJ), lengths(page), PAGES)
    pages = np.arange(LAYERS * PAGES)[:, None, None, None]
    rows_k, rows_v = np.arange(page), np.arange(page)[:, None]
    last = lengths(page)[slot] - page
    changed = [
        jnp.where((pages == PAGES + 3) | ((pages == PAGES + 2) & (rows < last)), pool, 50 * other)
        for rows, pool, other in zip(
            (rows_k, rows_v),
            pools("plain", 2, page, 8),
            pools("plain", 2, page, 8, seed=7),
            strict=True,
        )
    ]
    others = np.arange(5) != slot
    for others_length in (0, 1, page, 4 * page):
        length_B = np.where(others, others_length, lengths(page))
        table_BJ = np.where(others[:, None], 6, TABLE_BJ)
        table_BJ[slot, 2:] = 10
        q_other_BHA = jnp.where(others[:, None, None], 9.0, q_BHA)
        got = attend(q_other_BHA, *changed, jnp.asarray(table_BJ), length_B, PAGES)
        np.testing.assert_array_equal(got[slot], own[slot])


def test_tpu_and_plain_read_the_same_pool():
    """Through the same call, each in its own order of axes."""
    q_BHA = jax.random.normal(jax.random.key(1), (5, 4, 128))
    args = jnp.asarray(TABLE_BJ, jnp.int32), jnp.asarray(lengths(16), jnp.int32), PAGES
    plain = attend(q_BHA, *pools("plain", 2, 16, 128, "bfloat16"), *args)
    with pltpu.force_tpu_interpret_mode():
        tpu = paged_attention("tpu", q_BHA, *pools("tpu", 2, 16, 128, "bfloat16"), *args)
    np.testing.assert_allclose(tpu, plain, rtol=2 * 2**-8, atol=2**-7)


def test_the_gpu_kernel_is_called():
    args = jnp.asarray(TABLE_BJ, jnp.int32), jnp.asarray(lengths(16), jnp.int32), PAGES
    q_BHA = jnp.zeros((5, 4, 128))
    for kernel, calls in (("gpu", True), ("plain", False)):
        call = functools.partial(paged_attention, kernel)
        jaxpr = jax.make_jaxpr(call)(q_BHA, *pools(kernel, 2, 16, 128), *args)
        assert ("pallas_call" in str(jaxpr)) == calls


@pytest.mark.parametrize("kernel", ["plain", "tpu"])
def test_several_queries_of_a_slot_are_several_slots_with_its_pages(kernel):
    """Of lengths of their own, among them none; on an accelerator as well."""
    W, page, A = 3, 16, 128
    dtype = "float32" if kernel == "plain" else "bfloat16"
    k_pages, v_pages = pools(kernel, 2, page, A, dtype)
    q_QHA = jax.random.normal(jax.random.key(1), (5 * W, 4, A))
    length_Q = np.maximum(lengths(page)[:, None] - [2, 0, 7], 0).astype(np.int32).reshape(-1)
    interpreted = {"plain": contextlib.nullcontext, "tpu": pltpu.force_tpu_interpret_mode}

    def attended(table):
        args = jnp.asarray(table, jnp.int32), jnp.asarray(length_Q), PAGES
        with interpreted[kernel]():
            return paged_attention(kernel, q_QHA, k_pages, v_pages, *args)

    got, want = attended(TABLE_BJ), attended(np.repeat(TABLE_BJ, W, axis=0))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert (np.asarray(got)[length_Q == 0] == 0).all() and (length_Q == 0).sum() == W + 2


WRITTEN = {
    # One row of every head of each slot's page; idle slots all write to page 0.
    "one a slot": (1, [35, 0, 13, 0, 2], [0, 0, 15, 3, 7]),
    # Next to each other in one tile, across two pages, and of an idle slot in page 0.
    "two a slot": (2, [35, 35, 0, 0, 13, 2], [4, 5, 0, 1, 15, 0]),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", WRITTEN)
def test_write_token(kernel, name):
    K, page, A = 2, 16, 128
    per_slot, pages, rows = WRITTEN[name]
    page_Q, row_Q = np.int32(pages), np.int32(rows)
    before = pools(kernel, K, page, A, "bfloat16")
    rng = np.random.default_rng(1)
    k_QKA, v_QKA = (jnp.asarray(rng.normal(size=(len(rows), K, A)), jnp.float32) for _ in "kv")
    write = functools.partial(write_token, kernel, per_slot=per_slot)
    with pltpu.force_tpu_interpret_mode():
        after = jax.jit(write)(*before, k_QKA, v_QKA, jnp.asarray(page_Q), jnp.asarray(row_Q))
    assert [p.dtype for p in after] == [jnp.bfloat16] * 2
    assert [p.shape for p in after] == [p.shape for p in before]
    both = zip(in_order(kernel, *after), in_order(kernel, *before), (k_QKA, v_QKA), strict=True)
    for new, old, x_QKA in both:
        want = old.copy()
        for at, row, x_KA in zip(page_Q, row_Q, x_QKA.astype(jnp.bfloat16), strict=True):
            want[at, :, row] = x_KA
        np.testing.assert_array_equal(new[1:], want[1:])


@pytest.mark.parametrize(("kernel", "count"), [*product(KERNELS, [1, 4]), ("gpu", 3), ("tpu", 0)])
def test_write_prompt(kernel, count):
    """Whole pages in the order of their ids, in each layer's part of the pool; no others change."""
    K, page, A = 2, 4, 8
    width = head_width(kernel, A)
    assert width == (128 if kernel == "tpu" else A)
    before = pools(kernel, K, page, width, "bfloat16")
    page_N = np.array([7, 2, 11, 5])
    both_LTKA = jax.random.normal(jax.random.key(1), (2, LAYERS, 4 * page, K, A))
    write = jax.jit(functools.partial(write_prompt, kernel), static_argnames="pages")
    after = write(*before, *both_LTKA, jnp.asarray(page_N), jnp.int32(count), pages=PAGES)
    assert [p.dtype for p in after] == [jnp.bfloat16] * 2
    rounded = np.asarray(both_LTKA.astype(jnp.bfloat16), np.float32)
    orders = zip(in_order(kernel, *after), in_order(kernel, *before), rounded, strict=True)
    for got, want, x_LTKA in orders:
        want = want.copy()
        for layer in range(LAYERS):
            for n in range(count):
                rows = x_LTKA[layer, n * page : (n + 1) * page]
                want[layer * PAGES + page_N[n]] = 0  # behind a head that is not so wide
                want[layer * PAGES + page_N[n], ..., :A] = rows.swapaxes(0, 1)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("kernel", "count"), [*product(KERNELS, [3]), ("gpu", 1), ("plain", 0)])
def test_copy_pages(kernel, count):
    """The first `count` pairs, in every layer; one page may be copied to several."""
    before = pools(kernel, 2, 4, head_width(kernel, 8))
    from_N, to_N = np.array([7, 7, 2, 4]), np.array([1, 9, 11, 5])
    run = jax.jit(functools.partial(copy_pages, kernel), static_argnames="layers")
    args = jnp.asarray(from_N), jnp.asarray(to_N), jnp.int32(count)
    after = [run(pool, *args, layers=LAYERS) for pool in before]
    for got, want in zip(in_order(kernel, *after), in_order(kernel, *before), strict=True):
        want = want.copy()
        for layer in range(LAYERS):
            for source, to in zip(from_N[:count], to_N, strict=False):
                want[layer * PAGES + to] = want[layer * PAGES + source]
        np.testing.assert_array_equal(got, want)


FORM = {
    "heads": 12,
    "kv_heads": 2,
    "head_dim": 128,
    "page": 64,
    "dtype": "bfloat16",
    "table_entries": 64,
}


@pytest.mark.parametrize(
    ("platform", "change", "kernel"),
    [
        ("cpu", {}, "plain"),
        ("tpu", {}, "tpu"),
        ("gpu", {}, "gpu"),
        ("tpu", {"dtype": "float32"}, "plain"),
        ("gpu", {"dtype": "float32"}, "gpu"),
        ("tpu", {"head_dim": 64}, "tpu"),  # in a wider pool
        ("tpu", {"page": 8}, "plain"),
        ("gpu", {"page": 8}, "gpu"),
        ("gpu", {"page": 48}, "plain"),
        ("tpu", {"page": 48}, "tpu"),
        ("gpu", {"page": 128, "head_dim": 256}, "plain"),
        ("gpu", {"head_dim": 80}, "plain"),
        ("gpu", {"heads": 7}, "plain"),
        ("tpu", {"heads": 7}, "plain"),
        ("tpu", {"table_entries": 2**18}, "plain"),  # more than scalar memory holds
        ("gpu", {"table_entries": 2**18}, "gpu"),
    ],
)
def test_the_kernel_suits_the_platform_and_the_cache(platform, change, kernel):
    assert choose_kernel(platform, **(FORM | change)) == kernel
