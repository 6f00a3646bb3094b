"""The kernels of this device beside their plain references on the same device.

Errors are the largest difference over the largest number of the reference. Every reference computes
in float32, on the numbers that the kernel gets: those of a bfloat16 check are rounded before.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.on_device.results import Check, Refusal
from benchmarks.on_device.sizes import Sizes
from rlif_jax import sharding
from rlif_jax.batch import TokenStats
from rlif_jax.kernels.attention import cudnn, splash
from rlif_jax.kernels.attention.api import Implementation, attention
from rlif_jax.kernels.attention.segments import Segments
from rlif_jax.kernels.paged_attention import api as paged
from rlif_jax.kernels.precision import einsum
from rlif_jax.kernels.token_stats import plain as plain_stats
from rlif_jax.kernels.token_stats.api import token_stats

DTYPES = ("float32", "bfloat16")

_FIELDS = ("logprob", "entropy", "self_certainty", "top1", "top2")


def reordered(terms: int) -> tuple[float, str]:
    """What a float32 sum may differ when its terms are added in another order, and in words."""
    return 8 * math.sqrt(terms) * 2.0**-24, f"8 sqrt({terms}) 2^-24: order of float32 sums"


def to_bfloat16(times: int) -> tuple[float, str]:
    """What a number may differ that is rounded so many times, each of one step, and in words."""
    return times * 2.0**-8, f"{times} 2^-8: roundings to bfloat16"


def relative_error(got: Any, want: Any) -> float:
    """The largest difference over the largest |number| of `want`; NaN where `got` has one."""
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    return float(np.abs(got - want).max() / max(np.abs(want).max(), np.finfo(np.float32).tiny))


def check_products(sizes: Sizes) -> Iterator[Check]:
    """A float32 product beside NumPy's in float64: float32 must not be rounded before.

    TF32 and bfloat16 operands would be 2^13 and 2^16 times as far off.
    """
    rng = np.random.default_rng(0)
    D = sizes.kernel_model.embed
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((200, D), (D, 300)))
    got = jax.jit(lambda x, y: einsum("TD,DV->TV", x, y))(x, y)
    want = x.astype(np.float64) @ y.astype(np.float64)
    tolerance, basis = reordered(D)
    error = relative_error(got, want)
    yield Check("product", "values beside float64", "float32", error, tolerance, basis)


def check_token_stats(
    sizes: Sizes, dtype: str, stats_of: Callable[..., TokenStats] = token_stats
) -> Iterator[Check]:
    """`stats_of`, as a rule the package's, beside all logits at once: values and gradients."""
    cfg, T = sizes.kernel_model, sizes.tokens
    D, V, reachable = cfg.embed, cfg.vocab_rows, cfg.reachable
    keys = jax.random.split(jax.random.key(0), 5)
    x_TD = jax.random.normal(keys[0], (T, D)).astype(dtype)
    head_VD = (3 * D**-0.5 * jax.random.normal(keys[1], (V, D))).astype(dtype)  # logits of 3 nats
    target_T = jax.random.randint(keys[2], (T,), 0, reachable, jnp.int32)
    weights = [jax.random.normal(key, (T,)) for key in keys[3:]]

    def both(stats_of: Callable[..., TokenStats], *arrays: jax.Array):
        def total(x_TD, head_VD):
            stats = stats_of(x_TD, head_VD, target_T, 0.9, reachable)
            a_T, b_T = weights
            return (a_T * stats.logprob + b_T * stats.entropy).sum(), stats

        (_, stats), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(*arrays)
        return stats, gradients

    got, got_gradients = both(stats_of, x_TD, head_VD)
    exact = (x.astype(jnp.float32) for x in (x_TD, head_VD))
    want, want_gradients = both(plain_stats.token_stats, *exact)
    # Statistics inherit the errors of logits, which are sums over the width.
    tolerance, basis = reordered(D)
    for name in _FIELDS:
        error = relative_error(getattr(got, name), getattr(want, name))
        yield Check("token_stats", name, dtype, error, tolerance, basis)
    tolerance, basis = reordered(V)
    if dtype == "bfloat16":
        # The gradients of logits, their products and the results are rounded.
        tolerance, basis = to_bfloat16(5)
    for name, x, y in zip(("by x", "by head"), got_gradients, want_gradients, strict=True):
        error = relative_error(x, y)
        yield Check("token_stats", f"gradient {name}", dtype, error, tolerance, basis)


def packed_segments(columns: int, shared: bool) -> Segments:
    """Two rows of several sequences of unequal length, some of them completions of one prompt."""
    cuts = np.array([[0.13, 0.14, 0.4, 0.78, 0.97], [0.3, 0.35, 0.5, 0.51, 0.9]]) * columns
    at_T = np.arange(columns)
    own = np.stack([1 + (at_T[:, None] >= row).sum(axis=1) for row in cuts])
    own[own > 5] = 0  # empty columns at the end
    prefix = np.where((own == 2) | (own == 3), 1, own)
    return Segments(jnp.asarray(own, jnp.int32), jnp.asarray(prefix, jnp.int32) if shared else None)


def _rows_of(columns: int) -> dict[str, Segments]:
    """The kinds of rows that training and prefill have."""
    mask = np.arange(columns) < np.array([[columns], [0.7 * columns]])
    return {
        "packed": packed_segments(columns, shared=False),
        "shared prompts": packed_segments(columns, shared=True),
        "one sequence": Segments.of(jnp.asarray(mask)),
    }


def check_attention(
    sizes: Sizes, dtype: str, attend: Callable[..., jax.Array] = attention
) -> Iterator[Check | Refusal]:
    """`attend`, as a rule the package's, in every implementation that runs here."""
    cfg, T = sizes.kernel_model, sizes.columns
    H, K, A = cfg.heads, cfg.kv_heads, cfg.head_dim
    keys = jax.random.split(jax.random.key(1), 4)
    *qkv, weight = (
        jax.random.normal(key, (2, T, n, A)) for key, n in zip(keys, (H, K, K, H), strict=True)
    )
    qkv = [x.astype(dtype) for x in qkv]
    exact = [x.astype(jnp.float32) for x in qkv]
    tolerance, basis = reordered(T)
    if dtype == "bfloat16":
        tolerance, basis = to_bfloat16(3)  # scaled queries, weights and results are rounded
    for rows, segments in _rows_of(T).items():
        want = _read_and_gradients(attention, "plain", exact, segments, weight)
        for name in get_args(Implementation):
            if name == "plain":
                continue
            if reason := _refusal(name, dtype, A, segments):
                yield Refusal(f"attention, {name}", reason)
                continue
            got = _read_and_gradients(attend, name, qkv, segments, weight)
            parts = zip(("values", "dq", "dk", "dv"), got, want, strict=True)
            errors = {part: relative_error(x, y) for part, x, y in parts}
            worst = max(errors, key=lambda part: (math.isnan(errors[part]), errors[part]))
            told = f"{name}, {rows} (worst: {worst})"
            yield Check("attention", told, dtype, errors[worst], tolerance, basis)


def _refusal(name: Implementation, dtype: str, head_dim: int, segments: Segments) -> str | None:
    """Why an implementation does not compute this here, as it says itself; None if it does."""
    platform = sharding.platform()
    if name == "splash":
        return splash.refusal(platform, dtype, segments)
    return cudnn.refusal(platform, dtype, head_dim, segments) if name == "cudnn" else None


def _read_and_gradients(attend, implementation, qkv, segments, weight) -> tuple[Any, ...]:
    """What is read, and the gradients of its sum with weights that differ everywhere."""

    @jax.jit
    def both(q, k, v):
        def total(q, k, v):
            out = attend(q, k, v, segments, implementation=implementation)
            return (out.astype(jnp.float32) * weight).sum(), out

        (_, out), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(q, k, v)
        return out, *gradients

    return both(*qkv)


PagedAttention = Callable[..., jax.Array]


def check_paged_attention(
    sizes: Sizes, dtype: str, attend: PagedAttention = paged.paged_attention
) -> Iterator[Check | Refusal]:
    """Prompts and tokens written to pages and read from there, beside dense plain attention.

    Of a pool of two layers the second is used; slots share no page, and their lengths end anywhere.
    """
    cfg, page, J = sizes.kernel_model, 64, 6
    H, K, A = cfg.heads, cfg.kv_heads, cfg.head_dim
    length_B = np.array([J * page, 3 * page + 5, 1, 2 * page, page - 1, 5 * page + 1], np.int32)
    B = len(length_B)
    chosen = paged.choose_kernel(sharding.platform(), H, K, A, page, dtype, B * J)
    if chosen == "plain" and sharding.platform() != "cpu":
        reason = f"the platform's own kernel does not take a {dtype} cache of this form"
        yield Refusal(f"paged attention, {sharding.platform()}, {dtype}", reason)
    keys = jax.random.split(jax.random.key(2), 3)
    q_BHA = jax.random.normal(keys[0], (B, H, A)).astype(dtype)
    k_BTKA, v_BTKA = (jax.random.normal(key, (B, J * page, K, A)).astype(dtype) for key in keys[1:])
    want = _dense(q_BHA, k_BTKA, v_BTKA, length_B)
    tolerance, basis = reordered(J * page)
    if dtype == "bfloat16":
        tolerance, basis = to_bfloat16(4)  # the query, the weights, the parts, and the result
    for kernel in dict.fromkeys(("plain", chosen)):
        got = _through_pages(kernel, attend, q_BHA, k_BTKA, v_BTKA, length_B, page)
        error = relative_error(got, want)
        yield Check("paged attention", f"{kernel} kernel", dtype, error, tolerance, basis)


def _dense(q_BHA, k_BTKA, v_BTKA, length_B) -> jax.Array:
    """Each slot's query at its last token, over rows of float32 keys and values."""
    T = k_BTKA.shape[1]
    q, k, v = (x.astype(jnp.float32) for x in (q_BHA, k_BTKA, v_BTKA))
    q_BTHA = jnp.repeat(q[:, None], T, axis=1)
    segments = Segments.of(jnp.arange(T) < jnp.asarray(length_B)[:, None])
    out_BTHA = attention(q_BTHA, k, v, segments, implementation="plain")
    return out_BTHA[jnp.arange(len(length_B)), length_B - 1]


def _through_pages(
    kernel: paged.Kernel, attend, q_BHA, k_BTKA, v_BTKA, length_B: np.ndarray, page: int
) -> jax.Array:
    """All tokens of a slot but the last written as a prompt, the last as a drawn token; then read.

    Prompts are written whole; what lies behind the last token is never read.
    """
    B, T, K, A = k_BTKA.shape
    J, layers = T // page, 2
    pages = 1 + B * J
    table_BJ = 1 + np.random.default_rng(0).permutation(B * J).reshape(B, J).astype(np.int32)
    shapes = paged.pool_shapes(kernel, K, layers * pages, page, A)
    pools = [jnp.zeros(shape, paged.pool_dtype(kernel, q_BHA.dtype.name)) for shape in shapes]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def write_prompt(k_pages, v_pages, k_TKA, v_TKA, page_J):
        k_LTKA, v_LTKA = (jnp.stack([jnp.zeros_like(x), x]) for x in (k_TKA, v_TKA))
        return paged.write_prompt(
            kernel, k_pages, v_pages, k_LTKA, v_LTKA, page_J, jnp.int32(J), pages
        )

    @jax.jit
    def write_token_and_read(k_pages, v_pages, k_BKA, v_BKA):
        last_B = length_B - 1
        page_B = pages + table_BJ[np.arange(B), last_B // page]
        row_B = jnp.asarray(last_B % page)
        k_pages, v_pages = paged.write_token(
            kernel, k_pages, v_pages, k_BKA, v_BKA, jnp.asarray(page_B), row_B, per_slot=1
        )
        table, length = jnp.asarray(table_BJ), jnp.asarray(length_B)
        return attend(kernel, q_BHA, k_pages, v_pages, table, length, jnp.int32(pages))

    slot_B = np.arange(B)
    k_BKA, v_BKA = (x[slot_B, length_B - 1] for x in (k_BTKA, v_BTKA))
    for b in range(B):
        # In the place of the last token stand other numbers, so that its own write is seen.
        k_TKA, v_TKA = (x[b].at[length_B[b] - 1].set(7) for x in (k_BTKA, v_BTKA))
        pools = write_prompt(*pools, k_TKA, v_TKA, jnp.asarray(table_BJ[b]))
    return write_token_and_read(*pools, k_BKA, v_BKA)
