"""How large the cache is, and which sequences fit into it."""

import dataclasses

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_jax.errors import UserError
from rlif_jax.model.cache import init_cache
from rlif_jax.model.config import ModelConfig
from rlif_jax.sampler.pool_shape import Batching, PoolShape, bucket, pool_shape
from rlif_jax.sharding import make_mesh

CFG = ModelConfig(
    vocab_size=40, embed=32, ffn=64, layers=3, heads=4, kv_heads=2, head_dim=16, dtype="bfloat16"
)
BATCHING = Batching(slots=8, page=16)
# of two pools, 3 layers, 16 tokens, 2 heads, 16 bfloat16 numbers
PAGE_BYTES = 2 * 3 * 16 * 2 * 16 * 2
WORK = {"prompt": 20, "new": 50, "samples": 4, "sequences": 100}


def gib_of(pages: int) -> float:
    return pages * PAGE_BYTES / 2**30


def shape_of(batching: Batching = BATCHING, cfg: ModelConfig = CFG, **changes) -> PoolShape:
    return pool_shape(cfg, batching, **(WORK | changes))


def test_as_many_pages_as_the_sequences_can_use():
    """The null page; 8 slots of ceil((15 + 50) / 16) = 5; 2 prompts at a time and 2 more, of 2."""
    assert shape_of() == PoolShape(
        slots=8, page=16, pages=1 + 8 * 5 + 4 * 2, columns=6, kernel="plain", dtype="bfloat16"
    )
    few = shape_of(sequences=3)
    assert (few.slots, few.pages) == (3, 1 + 3 * 5 + 3 * 2)
    assert shape_of(samples=8).pages == 1 + 8 * 5 + 3 * 2
    assert shape_of(samples=1).pages == 1 + 8 * 5 + 10 * 2
    assert shape_of(prompt=1, new=1) == PoolShape(8, 16, 1 + 8 + 4, 1, "plain", "bfloat16")


def test_fewer_pages_where_memory_is_short():
    assert shape_of(dataclasses.replace(BATCHING, cache_gib=gib_of(1000))).pages == 49
    short = shape_of(dataclasses.replace(BATCHING, cache_gib=gib_of(20)))
    assert short == dataclasses.replace(shape_of(), pages=20)
    with pytest.raises(UserError, match=r"70 tokens needs .*lower max_new_tokens.*cache_gib"):
        shape_of(dataclasses.replace(BATCHING, cache_gib=gib_of(6)))
    # the null page, those of 70 tokens, and one more, as the prompt's last is copied: one at a time
    least = shape_of(dataclasses.replace(BATCHING, cache_gib=gib_of(7)))
    assert least.pages == 7
    least.check([[1] * 20], [(0, 50)])
    least.check([[1] * 15], [(0, 55)])


def test_the_refusal_says_how_much_is_missing():
    """2 pools of 4 layers, 16 tokens, 4096 bfloat16 numbers: a page of a MiB."""
    wide = dataclasses.replace(CFG, layers=4, kv_heads=1, head_dim=4096)
    said = "needs 7 MiB of cache on a device, and 6 MiB are available"
    with pytest.raises(UserError, match=said):
        shape_of(dataclasses.replace(BATCHING, cache_gib=6.5 / 1024), wide)


def test_without_a_limit_the_free_memory_counts():
    with pytest.raises(UserError, match="free memory"):
        shape_of(cfg=dataclasses.replace(CFG, head_dim=2**40))
    assert shape_of(dataclasses.replace(BATCHING, slots=2**12), sequences=2**12).pages == (
        1 + 2**12 * 5 + (2**10 + 2) * 2
    )


def test_the_type_of_the_cache_counts():
    limited = dataclasses.replace(BATCHING, cache_gib=gib_of(30))
    assert shape_of(limited).pages == 30
    assert shape_of(limited).dtype == "bfloat16"
    assert shape_of(dataclasses.replace(limited, cache_dtype="float32")).pages == 15
    assert shape_of(limited, dataclasses.replace(CFG, dtype="float32")).pages == 15


@pytest.mark.parametrize(
    ("axes", "heads", "kv_heads", "pages"),
    [
        ((2, 1, 1), 4, 2, 20),  # rows are split, a page is as large as before
        ((1, 1, 2), 4, 2, 40),  # each device has half of the heads
        ((1, 1, 4), 4, 2, 40),  # or one of them repeated
        ((2, 2, 2), 4, 2, 40),
    ],
)
def test_pages_of_a_mesh_fit_into_the_memory_of_each_device(axes, heads, kv_heads, pages):
    cfg = dataclasses.replace(CFG, heads=heads, kv_heads=kv_heads)
    batching = dataclasses.replace(BATCHING, slots=32, cache_gib=gib_of(20))
    with jax.set_mesh(make_mesh(*axes)):
        shape = shape_of(batching, cfg, new=100)
        assert (shape.slots, shape.pages) == (32, pages)
        cache = init_cache(cfg, pages=shape.pages, page=shape.page)
        used = sum(pool.addressable_shards[0].data.nbytes for pool in (cache.k, cache.v))
    assert gib_of(19) * 2**30 < used <= gib_of(20) * 2**30


def test_slots_divide_among_row_shards():
    with jax.set_mesh(make_mesh(2, 2, 2)):
        assert shape_of(dataclasses.replace(BATCHING, slots=10)).slots == 12
        few = shape_of(sequences=2)
        assert few.slots == 4  # one on each shard, though two stay empty
        assert few.pages == 1 + 5 + 3 * 2  # of a shard


def test_the_kernel_is_chosen_for_a_device_s_share():
    wide = dataclasses.replace(CFG, head_dim=128, heads=6, kv_heads=2)
    limited = dataclasses.replace(BATCHING, cache_gib=1.0)
    assert shape_of(limited, wide, platform="tpu").kernel == "tpu"
    assert shape_of(limited, wide, platform="cpu").kernel == "plain"
    assert shape_of(limited, wide).kernel == "plain"
    exact = dataclasses.replace(limited, cache_dtype="float32")
    assert shape_of(exact, wide, platform="tpu").kernel == "plain"
    # heads of 64 are filled up to 128 there
    narrow = dataclasses.replace(CFG, head_dim=64)
    tight = dataclasses.replace(BATCHING, cache_gib=gib_of(20) * 8)
    on_tpu, here = (shape_of(tight, narrow, platform=platform) for platform in ("tpu", "cpu"))
    assert (on_tpu.kernel, on_tpu.pages, here.pages) == ("tpu", 20, 40)
    single = dataclasses.replace(wide, dtype="float32")
    for platform in ("tpu", "gpu", "cpu"):  # a float32 model is not rounded unless told to
        assert shape_of(limited, single, platform=platform).dtype == "float32"
    rounded = dataclasses.replace(limited, cache_dtype="bfloat16")
    assert shape_of(rounded, single, platform="tpu").kernel == "tpu"
    # 2^18 entries of the page table, in one device's scalar memory or in four
    many = dataclasses.replace(limited, slots=2**15)
    long = {"sequences": 2**15, "new": 100, "platform": "tpu"}
    assert shape_of(many, wide, **long).kernel == "plain"
    with jax.set_mesh(make_mesh(4, 1, 2)):
        assert shape_of(many, wide, **long).kernel == "tpu"


@given(st.integers(1, 10**6), st.sampled_from([1, 16, 64, 100]))
def test_buckets_are_wide_enough_and_not_much_wider(length, page):
    width = bucket(length, page)
    assert width % page == 0
    assert length <= width < 1.5 * length + page
    assert bucket(length + 1, page) >= width
    assert bucket(width, page) == width


def test_buckets_are_few():
    assert [bucket(n, 1) for n in range(1, 14)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16]
    assert len({bucket(n, 64) for n in range(1, 16_385)}) == 16


def test_own_pages():
    """Behind 5 tokens in pages of 4: 3 rows of a page with the prompt's last token, then whole."""
    shape = PoolShape(1, 4, 99, 99, "plain", "bfloat16")
    assert [shape.own_pages(5, n) for n in (1, 3, 4, 7, 8)] == [1, 1, 2, 2, 3]
    assert [shape.own_pages(8, n) for n in (1, 4, 5)] == [1, 1, 2]  # the prompt's pages are whole


@pytest.mark.parametrize(
    ("prompt", "limit", "message"),
    [
        (0, 5, "prompt 1 is empty; .*beginning-of-sequence"),
        (3, 0, "max_new_tokens=0 of prompt 1 must be at least 1"),
        (7, 6, "prompt 1 has 7 tokens and asks for up to 6 more.*of 12 tokens; shorten the prompt"),
        (13, 1, "prompt 1 has 13 tokens.*lower max_new_tokens.*cache_gib"),
    ],
)
def test_what_does_not_fit_is_refused(prompt, limit, message):
    shape = PoolShape(slots=2, page=4, pages=9, columns=3, kernel="plain", dtype="bfloat16")
    prompts = [[1] * 7, [1] * prompt]
    shape.check(prompts, [(0, 5), (0, 1)])  # prompt 1 is not asked for
    with pytest.raises(UserError, match=message):
        shape.check(prompts, [(0, 5), (1, limit)])


def test_a_sequence_has_to_fit_into_the_pages_by_itself():
    """5 pages and the null page: 2 of a prompt of 7, its last token's again, and 2 more."""
    shape = PoolShape(slots=2, page=4, pages=6, columns=8, kernel="plain", dtype="bfloat16")
    shape.check([[1] * 7], [(0, 9)])
    with pytest.raises(UserError, match=r"asks for up to 10 more, .*of 16 tokens"):
        shape.check([[1] * 7], [(0, 10)])
    shape.check([[1] * 8], [(0, 12)])  # whole pages need no copy
    with pytest.raises(UserError, match="asks for up to 13 more"):
        shape.check([[1] * 8], [(0, 13)])
