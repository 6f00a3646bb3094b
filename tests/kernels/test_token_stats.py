"""token_stats against its plain reference, float64 by hand, ties, padding, and eight devices."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax import sharding
from rlif_jax.kernels.token_stats import api as kernel
from rlif_jax.kernels.token_stats import partials as parts
from rlif_jax.kernels.token_stats import plain as reference
from rlif_jax.kernels.token_stats.tiles import Tile
from rlif_jax.planning.ahead import mesh_of

FIELDS = ("logprob", "entropy", "self_certainty", "top1", "top2")


def inputs(leading, d, v, dtype=jnp.float32, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(*leading, d)) * scale, dtype)
    head = jnp.asarray(rng.normal(size=(v, d)), dtype)
    return x, head, jnp.asarray(rng.integers(0, v, leading), jnp.int32)


def float64_stats(z, target):
    """The definitions, in float64, one distribution at a time. `z` [V], `target` int."""
    z = np.asarray(z, np.float64)
    lse = z.max() + np.log(np.exp(z - z.max()).sum())
    p = np.exp(z - lse)
    top = np.sort(p)[::-1]
    entropy = -sum(q * np.log(q) for q in p if q > 0)
    return np.array([z[target] - lse, entropy, lse - z.mean(), top[0], top[1]])


def weighted(stats, key=0):
    """A scalar that weighs logprob and entropy of every token differently."""
    shape = stats.logprob.shape
    a, b = jax.random.normal(jax.random.key(key), (2, *shape))
    return (a * stats.logprob + b * stats.entropy).sum()


def both(fn, x, head, target, *args, **kwargs):
    """TokenStats, and the gradients of `weighted` by x and head."""

    def loss(x, h):
        stats = fn(x, h, target, *args, **kwargs)
        return weighted(stats), stats

    (_, stats), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, head)
    return stats, gradients


@pytest.mark.parametrize(
    ("leading", "d", "v", "vocab_size", "tile", "temperature"),
    [
        ((), 3, 5, None, Tile(1, 2), 0.7),
        ((7,), 8, 11, None, Tile(3, 4), 1.0),
        ((2, 3), 5, 97, None, Tile(6, 97), 1.3),
        ((3, 4), 6, 101, 90, Tile(5, 32), 0.7),
        ((2, 5), 6, 64, 50, Tile(4, 10), 1.0),  # a whole tile of padding rows, after one in part
        ((1, 1), 4, 2, None, None, 2.0),
        ((2, 2, 3), 4, 33, 32, Tile(7, 5), 1.0),
        ((2, 131), 4, 700, 690, Tile(100, 200), 1.0),
    ],
)
def test_equals_reference_in_float32(leading, d, v, vocab_size, tile, temperature):
    x, head, target = inputs(leading, d, v)
    target = target % (vocab_size or v)
    ours = both(kernel.token_stats, x, head, target, temperature, vocab_size, tile=tile)
    plain = both(reference.token_stats, x, head, target, temperature, vocab_size)
    for name in FIELDS:
        got, want = getattr(ours[0], name), getattr(plain[0], name)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6, err_msg=name)
    for got, want in zip(ours[1], plain[1], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_equals_reference_in_bfloat16():
    x, head, target = inputs((3, 5), 16, 203, jnp.bfloat16, scale=0.5)
    ours = both(kernel.token_stats, x, head, target, 0.9, 200, tile=Tile(3, 64))
    plain = both(reference.token_stats, x, head, target, 0.9, 200)
    for name in FIELDS:  # products of bfloat16 are exact in the float32 accumulator
        np.testing.assert_allclose(
            getattr(ours[0], name), getattr(plain[0], name), rtol=1e-4, atol=1e-5, err_msg=name
        )
    for got, want in zip(ours[1], plain[1], strict=True):
        assert got.dtype == jnp.bfloat16
        got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
        assert np.abs(got - want).max() <= 0.02 * np.abs(want).max()


def test_mixed_types_keep_the_types_of_the_arguments():
    x, head, target = inputs((4,), 8, 30)
    gradient = jax.grad(
        lambda x, h: kernel.token_stats(x, h, target, 1.0, tile=Tile(3, 7)).logprob.sum(), (0, 1)
    )(x.astype(jnp.bfloat16), head)
    assert [g.dtype for g in gradient] == [jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize(
    "z",
    [
        [0.0, 0.0, 0.0, 0.0],
        [1.0, 3.0, 2.0, 3.0],  # the maximum twice, in two tiles
        [3.0, 3.0, 1.0, 0.0],  # the maximum twice, in one tile
        [2.0, 1.0, 1.0, 0.5, 1.0],
        [1e4, -1e4, 0.0, 1e4],
        [-1e4, -1e4, -1e4, 5.0, 1e4],
        [30.0, 0.0, -5.0, 29.0, 2.0, 1.0, 7.0],
    ],
)
def test_hand_made_logits_against_float64(z):
    v = len(z)
    head = jnp.asarray(z, jnp.float32)[:, None]
    x = jnp.ones((v, 1), jnp.float32)
    target = jnp.arange(v)
    want = np.stack([float64_stats(z, t) for t in range(v)], axis=1)
    for stats in (
        kernel.token_stats(x, head, target, 1.0, tile=Tile(3, 2)),
        kernel.stats_from_logits(jnp.broadcast_to(head.T, (v, v)), target),
    ):
        got = np.stack([getattr(stats, name) for name in FIELDS])
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_two_equal_maxima_have_equal_top_probabilities():
    head = jnp.asarray([0.0, 2.0, 1.0, 2.0])[:, None]
    for columns in (1, 2, 3, 4):
        tile = Tile(1, columns)
        stats = kernel.token_stats(jnp.ones((1, 1)), head, jnp.array([0]), 1.0, tile=tile)
        # 2 e^2 + e + 1 = 18.496394...
        np.testing.assert_allclose(stats.top1, 0.3994863, rtol=1e-6)
        np.testing.assert_array_equal(stats.top1, stats.top2)


def test_uniform_distribution_by_hand():
    stats = kernel.token_stats(
        jnp.zeros((1, 2)), jnp.ones((8, 2)), jnp.array([3]), 1.0, 6, tile=Tile(3, 4)
    )
    got = [float(getattr(stats, name)[0]) for name in FIELDS]
    np.testing.assert_allclose(got, [-np.log(6), np.log(6), np.log(6), 1 / 6, 1 / 6], rtol=1e-6)


def test_temperature_divides_the_logits():
    x, head, target = inputs((5,), 4, 19)
    hot = kernel.token_stats(x, head, target, 2.0, tile=Tile(3, 8))
    halved = kernel.token_stats(x / 2, head, target, 1.0, tile=Tile(3, 8))
    for name in FIELDS:
        np.testing.assert_allclose(getattr(hot, name), getattr(halved, name), rtol=1e-5)


@pytest.mark.parametrize("axes", [None, (2, 2, 2)])
def test_several_temperatures_from_the_same_logits(axes):
    """Each against the plain reference, at sizes that divide no tile, and from one product."""
    x, head, target = inputs((8, 3), 6, 102)
    target, temperatures = target % 90, (0.7, 1.0, 2.5)
    run = jax.jit(lambda *args: kernel.token_stats_at(*args, temperatures, 90, tile=Tile(3, 32)))
    mesh = None if axes is None else sharding.make_mesh(*axes)
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        traced = run.trace(x, head, target)
        assert str(traced.jaxpr).count("dot_general") == 1
        got = run(x, head, target)
    for temperature, stats in zip(temperatures, got, strict=True):
        want = reference.token_stats(x, head, target, temperature, 90)
        for name in FIELDS:
            np.testing.assert_allclose(
                getattr(stats, name), getattr(want, name), rtol=2e-5, atol=2e-6, err_msg=name
            )


def test_gradient_of_extreme_logits_is_finite_and_exact():
    head = jnp.asarray([1e4, -1e4, 0.0, 1e4])[:, None]
    x, target = jnp.ones((1, 1)), jnp.array([2])
    d_x, d_head = jax.grad(
        lambda x, h: weighted(kernel.token_stats(x, h, target, 1.0, tile=Tile(3, 2))), (0, 1)
    )(x, head)
    a, b = (float(w[0]) for w in jax.random.normal(jax.random.key(0), (2, 1)))
    p = np.array([0.5, 0.0, 0.0, 0.5])
    log_p = np.array([-np.log(2), 0, 0, -np.log(2)])
    dz = a * (np.array([0, 0, 1, 0]) - p) - b * p * (log_p + np.log(2))
    np.testing.assert_allclose(d_head[:, 0], dz, atol=1e-5)
    np.testing.assert_allclose(d_x[0, 0], dz @ np.asarray(head)[:, 0], rtol=1e-4, atol=0.1)


def test_other_statistics_carry_no_gradient():
    x, head, target = inputs((4,), 4, 9)

    def loss(x, h):
        stats = kernel.token_stats(x, h, target, 1.0, tile=Tile(3, 4))
        return (stats.self_certainty + stats.top1 + stats.top2).sum()

    for gradient in jax.grad(loss, (0, 1))(x, head):
        np.testing.assert_array_equal(gradient, 0.0)


def test_padding_rows_have_no_influence_and_no_gradient():
    x, head, target = inputs((6,), 5, 40)
    target = target % 33
    junk = head.at[33:].set(1e6)
    clean = both(kernel.token_stats, x, head[:33], target, 1.0, tile=Tile(3, 8))
    padded = both(kernel.token_stats, x, junk, target, 1.0, 33, tile=Tile(3, 8))
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(padded[0], name), getattr(clean[0], name), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(padded[1][0], clean[1][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(padded[1][1][:33], clean[1][1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(padded[1][1][33:], 0.0)


def test_a_target_outside_the_vocabulary_cannot_pass_unnoticed():
    x, head, _ = inputs((2,), 4, 10)
    stats = kernel.token_stats(x, head, jnp.array([-1, 9]), 1.0, 9, tile=Tile(3, 4))
    assert (np.asarray(stats.logprob) < -1e38).all()


@settings(max_examples=25, deadline=None)
@given(
    z=st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=12),
    cuts=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    target=st.integers(0, 11),
)
def test_merge_is_associative_and_agrees_with_one_tile(z, cuts, target):
    target %= len(z)
    z = jnp.asarray(z, jnp.float32)
    i, j = sorted(min(c, len(z)) for c in cuts)

    def tile(lo, hi):
        if lo == hi:
            return parts.empty(())
        return parts.partials_of(z[lo:hi], jnp.asarray(target - lo))

    a, b, c = tile(0, i), tile(i, j), tile(j, len(z))
    left = parts.merge(parts.merge(a, b), c)
    right = parts.merge(a, parts.merge(b, c))
    whole = tile(0, len(z))
    for got in (left, right, parts.merge(parts.empty(()), whole)):
        np.testing.assert_allclose(got, whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("none", [-1, 0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_tokens_without_a_target_leave_no_trace(none, dtype, scale):
    """The gradients are those of the other tokens alone, at any size of the logits."""
    x, head, target = inputs((3, 7), 8, 50, dtype, scale)
    mask = jnp.asarray(np.random.default_rng(1).random((3, 7)) < 0.5).at[2].set(False)

    def gradients(x, target, mask):
        def loss(x, head):
            stats = kernel.token_stats(x, head, target, 0.9, 45, tile=Tile(4, 16))
            return jnp.where(mask, stats.logprob + 0.1 * stats.entropy, 0.0).sum()

        return jax.grad(loss, (0, 1))(x, head)

    with_others = gradients(x, jnp.where(mask, target % 45, none), mask)
    chosen = np.nonzero(np.asarray(mask))
    alone = gradients(x[chosen], target[chosen] % 45, jnp.ones(len(chosen[0]), bool))
    np.testing.assert_array_equal(np.asarray(with_others[0], np.float32)[~np.asarray(mask)], 0.0)
    for got, want in ((with_others[0][chosen], alone[0]), (with_others[1], alone[1])):
        got, want = (np.asarray(a, np.float32) for a in (got, want))
        assert np.isfinite(got).all() and np.abs(want).max() > 0
        assert (
            np.abs(got - want).max()
            <= (1e-5 if dtype == jnp.float32 else 0.01) * np.abs(want).max()
        )


@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
def test_equals_reference_at_any_size_of_the_logits(scale):
    """In float32, in which logits of 1e5 are 0.008 apart: gradients differ by as much."""
    x, head, target = inputs((2, 9), 8, 70, scale=scale)
    ours = both(kernel.token_stats, x, head, target % 66, 1.1, 66, tile=Tile(5, 32))
    plain = both(reference.token_stats, x, head, target % 66, 1.1, 66)
    for name in FIELDS:
        got, want = getattr(ours[0], name), getattr(plain[0], name)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(scale, 1), err_msg=name)
    for got, want in zip(ours[1], plain[1], strict=True):
        assert np.abs(got - want).max() <= 1e-4 * max(1, scale / 100) * np.abs(want).max()


@pytest.mark.parametrize(
    ("axes", "leading", "v"),
    [
        ((2, 2, 2), (8, 6), 96),
        ((1, 1, 8), (8, 6), 96),
        ((8, 1, 1), (8, 6), 96),
        ((2, 2, 2), (4, 3, 5), 96),  # completions behind one prompt
        ((2, 2, 2), (6, 7), 96),  # rows that data * fsdp do not divide
        ((1, 4, 2), (8, 6), 97),  # a vocabulary that tensor does not divide
    ],
)
def test_eight_devices_equal_one(axes, leading, v):
    x, head, target = inputs(leading, 16, v)
    target = target % 90
    alone = both(kernel.token_stats, x, head, target, 0.8, 90, tile=Tile(3, 7))
    mesh = sharding.make_mesh(*axes)
    with jax.set_mesh(mesh):
        spread = both(
            kernel.token_stats,
            *jax.device_put((x, head, target), sharding.replicated(mesh)),
            0.8,
            90,
            tile=Tile(3, 7),
        )
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(spread[0], name), getattr(alone[0], name), rtol=2e-5, atol=2e-6
        )
    for got, want in zip(spread[1], alone[1], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_row_split_over_devices_equals_one_device(monkeypatch):
    """Tokens of a row over one mesh axis, rows over another, the vocabulary over the third."""
    rules = {**sharding.RULES_TRAIN, "batch": "data", "length": "fsdp"}
    monkeypatch.setattr(kernel, "RULES", rules)
    x, head, target = inputs((4, 6), 16, 96)
    alone = both(kernel.token_stats, x, head, target % 90, 0.8, 90, tile=Tile(2, 7))
    mesh = sharding.make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        arrays = jax.device_put((x, head, target % 90), sharding.replicated(mesh))
        spread = both(kernel.token_stats, *arrays, 0.8, 90, tile=Tile(2, 7))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, spread, alone)


@pytest.mark.parametrize(
    ("topology", "tile"), [(None, Tile(512, 512)), ("v5e:2x2", Tile(2048, 8192))]
)
def test_the_tile_is_that_of_the_platform_compiled_for(topology, tile):
    """Not that of the process, which is a CPU in both cases: read from the traced program."""
    mesh = sharding.make_mesh(fsdp=4) if topology is None else mesh_of(topology, fsdp=4)
    x, head = (
        jax.ShapeDtypeStruct((4, 3000, 8), jnp.float32),
        jax.ShapeDtypeStruct((9000, 8), jnp.float32),
    )
    with jax.set_mesh(mesh):
        target = jax.ShapeDtypeStruct((4, 3000), jnp.int32)
        program = str(jax.make_jaxpr(lambda *a: kernel.token_stats(*a, 1.0))(x, head, target))
    (logits,) = set(re.findall(r"f32\[(\d+),(\d+)\] = dot_general", program))
    tokens, columns = map(int, logits)
    assert tile.tokens / 2 < tokens <= tile.tokens and tile.columns / 2 < columns <= tile.columns


def peak_temp_bytes(fn, *args):
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_logits_are_never_materialised():
    tokens, d, v = 512, 64, 16384
    x, head, target = inputs((4, 128), d, v)
    loss = lambda fn: lambda x, h: weighted(fn(x, h, target, 1.0))
    all_logits = tokens * v * 4
    assert peak_temp_bytes(loss(kernel.token_stats), x, head) < all_logits / 4
    assert peak_temp_bytes(jax.grad(loss(kernel.token_stats), (0, 1)), x, head) < all_logits / 4
    assert peak_temp_bytes(loss(reference.token_stats), x, head) >= all_logits


def test_the_head_is_not_gathered_over_the_vocabulary():
    """Each of eight tensor-parallel devices works on its eighth of the head only."""
    x, head, target = inputs((2, 4), 16, 8192)
    mesh = sharding.make_mesh(tensor=8)
    split = jax.sharding.NamedSharding(mesh, sharding.spec(("vocab", "embed")))
    with jax.set_mesh(mesh):
        args = (jax.device_put(x, sharding.replicated(mesh)), jax.device_put(head, split))
        loss = lambda x, h: weighted(kernel.token_stats(x, h, target, 1.0, tile=Tile(3, 64)))
        step = jax.jit(jax.grad(loss, (0, 1)), out_shardings=(None, split))
        compiled = step.lower(*args).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < head.nbytes / 2
