"""Digests: the same wherever the numbers are, and another for any other bits or places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rlif_jax.run.digest import LANES, digest_of, digests, mixed_sums
from rlif_jax.sharding import make_mesh
from rlif_jax.weights.parameters import named

M = (1 << 32) - 1
SIZES = [(), (1,), (7,), (8, 24), (3, 5, 11), (16, 1001), (0, 4)]


def reference(x, places=1 << 32) -> tuple[int, int]:
    """The definition in Python's own integers, number by number."""
    x = np.asarray(x)
    bits = [int(b) for b in x.reshape(-1).view(f"u{x.dtype.itemsize}")]
    inner = x.size
    for size in x.shape:  # leading axes until the others are few enough
        if inner <= places:
            break
        inner //= size
    sums = []
    for of_low, of_high, add in LANES:
        total = 0
        for i, b in enumerate(bits):
            high, low = divmod(i, max(inner, 1))
            h = b ^ ((low * of_low + high * of_high + add) & M)
            h = (h ^ (h >> 16)) * 0x85EBCA6B & M
            h = (h ^ (h >> 13)) * 0xC2B2AE35 & M
            total += h ^ (h >> 16)
        sums.append(total & M)
    return sums[0], sums[1]


def of(x) -> str:
    return digests({"x": x})["x"]


def text(sums: tuple[int, int]) -> str:
    return f"{sums[0]:08x}{sums[1]:08x}"


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint8", "bool"])
def test_digests_are_those_of_the_definition(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape) * 100
    x = np.asarray(jnp.asarray(x).astype(dtype))
    assert of(x) == of(jnp.asarray(x)) == text(reference(x))


@pytest.mark.parametrize("places", [1, 6, 30, 55, 10_000])
def test_places_beyond_the_low_word_are_told_apart_by_the_high_word(places):
    x = np.random.default_rng(1).normal(size=(6, 5, 11)).astype(np.float32)
    assert tuple(mixed_sums(x, places).tolist()) == reference(x, places)
    swapped = x[[1, 0, 2, 3, 4, 5]]
    assert (mixed_sums(swapped, places) != mixed_sums(x, places)).all()


def test_an_array_of_more_numbers_than_32_bits_count_is_traced():
    shape = jax.ShapeDtypeStruct((3, 1 << 16, 1 << 15), jnp.bfloat16)
    assert jax.eval_shape(mixed_sums, shape).shape == (2,)


@pytest.mark.parametrize(
    "spec", [(), ("data",), (None, "tensor"), (("data", "fsdp"), "tensor"), ("tensor", "fsdp")]
)
def test_the_sharding_does_not_matter(spec):
    x = np.random.default_rng(2).normal(size=(16, 1024)).astype(np.float32)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    assert of(placed) == text(reference(x))
    with jax.set_mesh(mesh):
        assert digests({"x": placed, "y": x}) == {"x": of(x), "y": of(x)}


def test_any_bit_and_any_place_matters():
    x = np.random.default_rng(3).normal(size=(5, 13)).astype(np.float32)
    seen = {of(x)}
    for bit in range(32):
        flipped = x.copy()
        flipped.view(np.uint32)[4, 7] ^= np.uint32(1 << bit)
        seen.add(of(flipped))
    for i, j in [(0, 1), (0, 64), (13, 12), (63, 64)]:
        swapped = x.copy().reshape(-1)
        swapped[[i, j]] = swapped[[j, i]]
        seen.add(of(swapped.reshape(x.shape)))
    assert len(seen) == 1 + 32 + 4
    assert of(np.float32([0.0, 1.0])) != of(np.float32([-0.0, 1.0]))
    assert of(np.zeros(3, np.float32)) != of(np.zeros(4, np.float32))
    both = x.copy()  # a sum of bits alone would see no difference
    both.view(np.uint32)[0, 0] ^= np.uint32(1 << 31)
    both.view(np.uint32)[0, 1] ^= np.uint32(1 << 31)
    assert of(both) not in seen


def test_parameters_have_their_declared_names(tiny):
    of_state, of_names = digests(tiny[1]), digests(named(tiny[1]))
    assert of_state == of_names
    assert of_state["layers.q"] == text(reference(named(tiny[1])["layers.q"]))
    assert len(set(digests({"a": tiny[1], "b": [np.int32(1), np.uint8(2)]}))) == len(of_state) + 2


def test_keys_are_their_data_and_other_types_are_refused():
    key = jax.random.key(3)
    assert of(key) == of(jax.random.key_data(key)) != of(jax.random.key(4))
    with pytest.raises(TypeError, match="x is int64"):
        of(np.arange(3))
    assert digests({}) == {}


def test_one_digest_of_all():
    parts = {"a": "0" * 16, "b": "1" * 16}
    assert digest_of(parts) == digest_of(dict(reversed(parts.items())))
    assert len({digest_of(parts), digest_of({"a": "1" * 16, "b": "0" * 16}), digest_of({})}) == 3
    assert len(digest_of(parts)) == 16
