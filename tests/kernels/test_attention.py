"""Attention of packed rows: values and gradients of each implementation beside the plain one's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed_rows import attention_arrays, segments_of

from rlif_jax.kernels.attention.blocked import Form, blocked_attention, form_for
from rlif_jax.kernels.attention.cudnn import cudnn_attention
from rlif_jax.kernels.attention.plain import plain_attention
from rlif_jax.kernels.attention.segments import Segments, needed_blocks, visible
from rlif_jax.kernels.attention.splash import shared_prompts, splash_attention

# Lengths of the sequences of each row: 0 is an empty column, and a negative length is that of a
# completion, which continues the last sequence of positive length.
PACKED = [[10, 1, 23], [0, 0, 5, 0, 17, 0, 0, 3], [53], [0], [1]]
SHARED = [[9, -7, -3, -12, 4, -1], [0, 3, 0, -20, -1, 0], [20, -30], [0], [2, -1]]


splash = functools.partial(splash_attention, interpret=True)


@functools.cache
def blocked(block: int, operands: str):
    return functools.partial(blocked_attention, form=Form(block, operands))


@functools.partial(jax.jit, static_argnums=0)
def gradients(attend, q, k, v, segments, weight):
    """What is read, and the gradients of its sum with weights that differ everywhere."""

    def total(q, k, v):
        out = attend(q, k, v, segments)
        return (out.astype(jnp.float32) * weight).sum(), out

    (_, out), found = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(q, k, v)
    assert [x.dtype for x in (out, *found)] == [q.dtype, q.dtype, k.dtype, v.dtype]
    return [x.astype(jnp.float32) for x in (out, *found)]


def agree(attend, arrays, segments, dtype):
    """Assert that an implementation equals the plain one in float32 on the same numbers."""
    q, k, v, weight = arrays
    got = gradients(attend, *(x.astype(dtype) for x in (q, k, v)), segments, weight)
    exact = (x.astype(dtype).astype(jnp.float32) for x in (q, k, v))
    want = gradients(plain_attention, *exact, segments, weight)
    large = {name: float(np.abs(x).max()) for name, x in zip("qkvw", arrays, strict=True)}
    # A token that sees itself alone has dq = dk = 0: what is left are terms that cancel, rounded.
    terms = {"dq": large["w"] * large["v"] * large["k"], "dk": large["w"] * large["v"] * large["q"]}
    for name, x, y in zip(("out", "dq", "dk", "dv"), got, want, strict=True):
        scale = max(float(np.abs(y).max()), 0.03 * terms.get(name, 0.0))
        # bfloat16: q scaled, weights, their gradients and the results are each rounded once.
        tolerance = {"float32": 3e-6, "bfloat16": 3 * 2**-8}[dtype] * scale
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance, err_msg=name)
    empty = np.asarray(segments.own) == 0
    assert all((np.asarray(x)[empty] == 0).all() for x in got)  # neither values nor gradients


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("block", [7, 16, 128])
def test_blocked(block, dtype):
    segments = segments_of(PACKED + SHARED, T=53)
    agree(blocked(block, dtype), attention_arrays(R=10, T=53, H=6, K=2, A=16), segments, dtype)


@pytest.mark.parametrize("H, K, A", [(4, 4, 5), (5, 1, 16)])
def test_blocked_heads(H, K, A):
    arrays = attention_arrays(R=5, T=53, H=H, K=K, A=A)
    agree(blocked(16, "float32"), arrays, segments_of(SHARED, T=53), "float32")


def test_operands_wider_than_the_arrays():
    """On CPUs bfloat16 numbers are multiplied in float32: only the results are rounded."""
    assert form_for("cpu", "bfloat16").operands == "float32"
    assert (
        form_for("gpu", "bfloat16").operands == form_for("tpu", "bfloat16").operands == "bfloat16"
    )
    arrays = attention_arrays(R=5, T=53, H=6, K=2, A=16)
    agree(blocked(16, "float32"), arrays, segments_of(PACKED, T=53), "bfloat16")


@pytest.mark.parametrize("scale", [1e-3, 1e4])
@pytest.mark.parametrize("of", ["queries", "values", "gradients"])
def test_blocked_at_magnitudes(scale, of):
    """Scores are exact sums, however large, so that equal ones stay equal in every order."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.float32(rng.integers(-3, 4, (5, 53, heads, 16))) for heads in (6, 2, 2))
    *_, weight = attention_arrays(R=5, T=53, H=6, K=2, A=16)
    factor = {"queries": (scale, 1, 1), "values": (1, scale, 1), "gradients": (1, 1, scale)}[of]
    factor = [2.0 ** round(np.log2(x)) for x in factor]
    arrays = (q * factor[0], k, v * factor[1], weight * factor[2])
    agree(blocked(16, "float32"), arrays, segments_of(SHARED, T=53), "float32")


@settings(max_examples=15)
@given(st.data())
def test_blocked_of_any_packing(data):
    lengths = st.lists(st.integers(-9, 12), min_size=1, max_size=6)
    rows = data.draw(st.lists(lengths, min_size=3, max_size=3))
    segments = segments_of([[0, *row] if row[0] < 0 else row for row in rows], T=41)
    agree(blocked(8, "float32"), attention_arrays(R=3, T=41, H=2, K=1, A=4), segments, "float32")


def test_tokens_that_see_themselves_alone():
    segments = segments_of([[0], [0], [0, -1]], T=41)
    agree(blocked(8, "float32"), attention_arrays(R=3, T=41, H=2, K=1, A=4), segments, "float32")


def test_what_a_query_sees():
    """Against the rule, column by column."""
    segments = segments_of(SHARED, T=53)
    own, prefix = (np.asarray(x) for x in (segments.own, segments.prefix))
    columns = jnp.arange(53)
    seen = visible(segments.own, segments.prefix, segments.own, columns, columns)
    for r in range(len(SHARED)):
        for i in range(53):
            rule = [
                j <= i and own[r, j] != 0 and own[r, j] in (own[r, i], prefix[r, i])
                for j in range(53)
            ]
            np.testing.assert_array_equal(seen[r, i], rule)


@pytest.mark.parametrize("lengths", [PACKED, SHARED], ids=["packed", "shared prompts"])
def test_no_block_is_visited_in_vain_or_left_out(lengths):
    segments, columns = segments_of(lengths, T=56), jnp.arange(56)
    own, prefix = segments.own, segments.prefix_or_own
    seen = visible(own, prefix, own, columns, columns)
    seen = np.asarray(seen).reshape(len(lengths), 7, 8, 7, 8).any(axis=(2, 4))
    needed = needed_blocks(own, own, 8) | needed_blocks(own, prefix, 8)
    np.testing.assert_array_equal(needed, seen)


@pytest.mark.parametrize(
    "attend, block, dtype", [(blocked(8, "float32"), 8, "float32"), (splash, 512, "bfloat16")]
)
def test_blocks_that_no_query_needs_are_not_computed(attend, block, dtype):
    """NaN in keys and values of the first block changes nothing for the sequences behind it."""
    T = 4 * block
    *qkv, weight = attention_arrays(R=1, T=T, H=2, K=1, A=4)
    q, k, v = (x.astype(dtype) for x in qkv)
    segments = segments_of([[block, block, -block, -block]], T=T)
    k_nan, v_nan = (x.at[:, :block].set(jnp.nan) for x in (k, v))
    got = gradients(attend, q, k_nan, v_nan, segments, weight)
    want = gradients(attend, q, k, v, segments, weight)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x[:, block:], y[:, block:])


@pytest.mark.parametrize(
    "T, A, shared", [(300, 64, False), (300, 64, True), (1100, 16, True), (5, 8, False)]
)
def test_splash(T, A, shared):
    """Rows that no block divides, of short sequences and of a long one, with an empty block."""
    short = [[40, 0, 3, -(T // 3), -9], [0] * (T // 2) + [2, -5]]
    segments = segments_of([*short, [T], [0], [1, 1, T // 2, -(T // 4), -1, 3, -2]], T=T)
    segments = segments if shared else Segments(segments.own)
    agree(splash, attention_arrays(R=5, T=T, H=4, K=2, A=A), segments, "bfloat16")


def test_rows_of_shared_prompts_up_to_the_greatest_column():
    """The last column that a query's number holds: the kernel's rule, column by column."""
    T = 2**15
    own = jnp.where(jnp.arange(T) < 7, 1, jnp.where(jnp.arange(T) < T - 5, 2, 3))[None]
    rule = shared_prompts(own, jnp.ones_like(own), 512)
    for query in (6, 7, T - 6, T - 5, T - 1):
        seen = rule.sees(rule.number_RT[0, query], jnp.arange(2 * T))
        seen &= rule.key_RS[0] == rule.query_RT[0, query]
        columns = jnp.arange(T)
        want = visible(
            own[:, query, None], jnp.ones((1, 1), int), own, columns[query, None], columns
        )
        np.testing.assert_array_equal(seen[:T] | seen[T:], want[0, 0])
        assert not (seen[:T] & seen[T:]).any()  # no key twice


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_surrounds_cudnn(dtype):
    """Rows of one sequence each, wherever it starts; XLA's attention in the place of cuDNN's."""
    mask = np.zeros((5, 37), bool)
    for row, (start, stop) in enumerate([(0, 37), (0, 20), (9, 37), (9, 20), (0, 0)]):
        mask[row, start:stop] = True
    segments = Segments.of(jnp.asarray(mask))
    arrays = attention_arrays(R=5, T=37, H=6, K=2, A=16)
    agree(functools.partial(cudnn_attention, kernel="xla"), arrays, segments, dtype)
