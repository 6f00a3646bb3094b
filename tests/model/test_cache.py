"""Prefill and decode over a paged cache agree with the full forward, on one device and on eight."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.decoders import CONFIGS, decoder, forward
from support.tiny_gguf import TINY

from rlif_jax import sharding
from rlif_jax.model.cache import copy, init_cache, put_prompts
from rlif_jax.model.decoder import Decoder

PAGE, J, PAGES = 4, 3, 17  # tokens of a page, pages of a slot, pages a layer
T = J * PAGE
PROMPTS = (1, 4, 6, 8, 11)  # end inside a page and with it


def sequences(count: int, group: int = 1, prompts: Sequence[int] = ()) -> np.ndarray:
    """Random tokens [count, T]; every `group` rows begin with the same prompt."""
    tokens = np.random.default_rng(2).integers(0, TINY.vocab_size, (count, T)).astype(np.int32)
    for n, prompt in enumerate(prompts):
        tokens[n * group : (n + 1) * group, :prompt] = tokens[n * group, :prompt]
    return tokens


def shuffled_pages(rows: int, seed: int = 0) -> np.ndarray:
    """Different pages for every row, in no order."""
    order = np.random.default_rng(seed).permutation(PAGES - 1) + 1
    return order[: rows * J].reshape(rows, J)


@functools.partial(jax.jit, static_argnums=0)
def prefill(graphdef, params, cache, tokens_NT, page_NJ, count_N):
    x_NTD, k_LNTKA, v_LNTKA = nnx.merge(graphdef, params).prefill(tokens_NT)
    return x_NTD, put_prompts(cache, k_LNTKA, v_LNTKA, page_NJ, count_N)


@functools.partial(jax.jit, static_argnums=0)
def decode(graphdef, params, *args):
    return nnx.merge(graphdef, params).decode(*args)


copied = jax.jit(copy)


class Paged:
    """Slots of T tokens at most, whose pages are filled by `prefill` and `decode`."""

    def __init__(self, model: Decoder, table_BJ: np.ndarray, dtype: str | None = None):
        self.split = nnx.split(model)
        self.cache = init_cache(model.cfg, pages=PAGES, page=PAGE, dtype=dtype)
        self.table_BJ = table_BJ.copy()
        self.length_B = np.full(len(table_BJ), T)  # full: nothing to do

    def prefill(self, tokens_NT, prompts, page_NJ) -> np.ndarray:
        """One prompt on each row shard, with other tokens behind it."""
        length_N1 = np.array(prompts)[:, None]
        tokens_NT = np.where(np.arange(T) < length_N1, tokens_NT, tokens_NT[:, ::-1])
        count_N = -(-length_N1[:, 0] // PAGE)
        x_NTD, self.cache = prefill(*self.split, self.cache, tokens_NT, page_NJ, count_N)
        return np.asarray(x_NTD)

    def start(self, tokens_BT, prompts) -> np.ndarray:
        """Every slot with a prompt in its own pages."""
        self.length_B[:] = prompts
        slots = [slice(b, b + 1) for b in range(len(prompts))]
        parts = [self.prefill(tokens_BT[b], prompts[b], self.table_BJ[b]) for b in slots]
        return np.concatenate(parts)

    def step(self, token_B, live_B) -> np.ndarray:
        args = (self.table_BJ, self.length_B, live_B)
        x_BD, self.cache = decode(*self.split, token_B, self.cache, *args)
        return np.asarray(x_BD)

    def fill(self, tokens_BT, x_BTD: np.ndarray) -> np.ndarray:
        """All slots decoded until they are full, each with pauses of its own: x_BTD with these."""
        rng, rows = np.random.default_rng(3), np.arange(len(tokens_BT))
        x_BTD = x_BTD.copy()
        while (self.length_B < T).any():
            live_B = (self.length_B < T) & (rng.random(len(rows)) < 0.7)
            at_B = np.minimum(self.length_B, T - 1)
            token_B = np.where(live_B, tokens_BT[rows, at_B], rng.integers(0, 40, len(rows)))
            x_BD = self.step(token_B.astype(np.int32), live_B)
            x_BTD[live_B, at_B[live_B]] = x_BD[live_B]
            self.length_B = self.length_B + live_B
        return x_BTD


def test_prefill_is_the_forward_of_what_stands_before():
    """States, keys and values of a prompt do not see what follows it in its row."""
    model, tokens = decoder("qwen"), sequences(2)
    graphdef, params = nnx.split(model)
    run = jax.jit(lambda params, tokens: nnx.merge(graphdef, params).prefill(tokens))
    x_BTD, *kv_LBTKA = run(params, tokens)
    np.testing.assert_allclose(x_BTD, forward(model)(tokens), atol=2e-5)
    other_BTD, *other_LBTKA = run(params, np.where(np.arange(T) < 5, tokens, 39 - tokens))
    np.testing.assert_array_equal(other_BTD[:, :5], x_BTD[:, :5])
    assert (np.abs(other_BTD - x_BTD)[:, 5:].max(-1) > 1e-3).all()
    for other, kv in zip(other_LBTKA, kv_LBTKA, strict=True):
        assert kv.shape == (model.cfg.layers, 2, T, model.cfg.kv_heads, model.cfg.head_dim)
        np.testing.assert_array_equal(other[:, :, :5], kv[:, :, :5])


@pytest.mark.parametrize("family", CONFIGS)
def test_prefill_and_decode_equal_the_full_forward(family):
    """At every position, behind prompts that end inside a page and with one."""
    model, tokens = decoder(family), sequences(len(PROMPTS))
    paged = Paged(model, shuffled_pages(len(PROMPTS)))
    got = paged.fill(tokens, paged.start(tokens, PROMPTS))
    np.testing.assert_allclose(got, forward(model)(tokens), atol=2e-5)


def test_bfloat16_decode_is_as_near_to_float32_as_the_forward():
    """The cache rounds what the forward rounds as well, but for the scaled query.

    A float32 model on a bfloat16 cache rounds only some of that.
    """
    tokens = sequences(len(PROMPTS))
    exact, half = decoder("qwen"), decoder("qwen", dtype="bfloat16")
    want = forward(exact)(tokens)

    def error(got) -> float:
        return float(np.sqrt(np.mean((np.asarray(got, np.float32) - want) ** 2)))

    forward_error = error(forward(half)(tokens))
    for model, most in ((half, 1.25 * forward_error), (exact, forward_error)):
        paged = Paged(model, shuffled_pages(len(PROMPTS)), dtype="bfloat16")
        got = paged.fill(tokens, paged.start(tokens, PROMPTS))
        assert paged.cache.k.dtype == paged.cache.v.dtype == jnp.uint16  # its bits
        assert got.dtype == model.cfg.dtype
        assert 1e-4 < error(got) < most < 0.1


@pytest.mark.parametrize("prompt", [6, 8])
def test_samples_share_the_pages_of_their_prompt(prompt):
    """The page that they go on in is copied; the prompt stays as it was for later samples."""
    tokens, prompt_pages = sequences(4, 4, [prompt]), np.array([[7, 10, 0]])
    want = forward(decoder())(tokens)
    table_BJ = np.array([[7, 2, 9], [7, 5, 1], [7, 8, 3], [7, 4, 6]])
    if prompt == 8:
        table_BJ[:, 1] = 10
    paged = Paged(decoder(), table_BJ)
    x_BTD = np.tile(paged.prefill(tokens[:1], [prompt], prompt_pages), (4, 1, 1))
    at = np.array([0, PAGES])[:, None] + prompt_pages[0, :2]
    before = np.asarray(paged.cache.k)[at]
    for slots in (slice(0, 3), slice(3, 4)):  # the last one starts when the others have ended
        to_B = np.zeros(4, np.int32)
        copies = len(to_B[slots]) if prompt % PAGE else 0
        to_B[:copies] = table_BJ[slots, 1][:copies]
        paged.cache = copied(paged.cache, np.full(4, 10), to_B, np.array([copies]))
        paged.length_B[slots] = prompt
        x_BTD = paged.fill(tokens, x_BTD)
        np.testing.assert_array_equal(np.asarray(paged.cache.k)[at], before)
    for row_TD, want_TD in zip(x_BTD, want, strict=True):
        np.testing.assert_allclose(row_TD[prompt:], want_TD[prompt:], atol=2e-5)
    assert (np.abs(want[1:] - want[0]).max((1, 2)) > 0.1).all()


def test_slots_that_are_not_live_leave_no_trace():
    """Whatever is in them, no bit changes of the others' states, nor of any page but page 0."""
    tokens, prompts = sequences(len(PROMPTS)), np.array(PROMPTS)
    live_B = np.array([True, False, True, False, True])
    states = []
    for changed in (False, True):
        paged = Paged(decoder(), shuffled_pages(len(PROMPTS)))
        paged.start(tokens, PROMPTS)
        token_B = tokens[np.arange(len(PROMPTS)), prompts]
        if changed:
            token_B = np.where(live_B, token_B, 39 - token_B)
            paged.table_BJ[1], paged.table_BJ[3] = paged.table_BJ[0], 0
            paged.length_B[1], paged.length_B[3] = 0, T
        before = np.asarray(paged.cache.k), np.asarray(paged.cache.v)
        states.append(paged.step(token_B, live_B))
        page_b = paged.table_BJ[live_B, prompts[live_B] // PAGE]
        written = {
            (p + first, r)
            for first in (0, PAGES)
            for p, r in zip(page_b, prompts[live_B] % PAGE, strict=True)
        }
        after = paged.cache.k, paged.cache.v
        for new, old, other_axes in zip(after, before, ((1, 2), (1, 3)), strict=True):
            different = np.argwhere((np.asarray(new) != old).any(other_axes))
            assert {(p, r) for p, r in different if p % PAGES} == written
    np.testing.assert_array_equal(states[0][live_B], states[1][live_B])
    assert np.isfinite(states).all()


@pytest.mark.parametrize(
    ("axes", "heads", "kv_heads", "cached", "local"),
    [
        ((2, 2, 2), 4, 2, 2, 1),
        ((1, 2, 2), 4, 1, 2, 1),  # the one head is repeated
        ((1, 1, 4), 8, 2, 4, 1),  # each is repeated, next to itself
    ],
)
def test_a_mesh_decodes_as_one_device(axes, heads, kv_heads, cached, local):
    """Two samples of a prompt on each row shard, which has pages of its own under the same ids."""
    model = decoder(heads=heads, kv_heads=kv_heads)
    mesh = sharding.make_mesh(*axes)
    lengths = np.array([6, 4, 1, 11])[: axes[0] * axes[1]]
    shards, partial = len(lengths), lengths % PAGE > 0
    tokens = sequences(2 * shards, 2, lengths)
    want = forward(model)(tokens)
    pages_NSJ = np.stack([shuffled_pages(3, seed=n) for n in range(shards)])  # prompt, two samples
    from_B, to_B, table_BJ = np.zeros(2 * shards, int), np.zeros(2 * shards, int), []
    for n, whole in enumerate(lengths // PAGE):
        for i in (1, 2):
            table_BJ.append([*pages_NSJ[n, 0, :whole], *pages_NSJ[n, i, whole:]])
            if partial[n]:
                from_B[2 * n + i - 1] = pages_NSJ[n, 0, whole]
                to_B[2 * n + i - 1] = pages_NSJ[n, i, whole]
    graphdef, params = nnx.split(model)
    shardings = sharding.param_shardings(params, mesh, sharding.RULES_DECODE)
    down = shardings["layers"]["down"].get_value()
    assert down.spec == jax.sharding.PartitionSpec(None, "tensor")
    with jax.set_mesh(mesh):
        model = nnx.merge(graphdef, jax.device_put(params, shardings))
        paged = Paged(model, np.array(table_BJ))
        assert paged.cache.v.shape == (shards * 2 * PAGES, cached, PAGE, 8)
        assert paged.cache.v.addressable_shards[0].data.shape == (2 * PAGES, local, PAGE, 8)
        assert paged.cache.k.addressable_shards[0].data.shape == (2 * PAGES, local, 8, PAGE)
        x_NTD = paged.prefill(tokens[::2], lengths, pages_NSJ[:, 0])
        paged.cache = copied(paged.cache, from_B, to_B, 2 * partial)
        paged.length_B[:] = np.repeat(lengths, 2)
        got = paged.fill(tokens, np.repeat(x_NTD, 2, axis=0))
    prompt_BT = np.arange(T) < np.repeat(lengths, 2)[:, None]
    np.testing.assert_allclose(got[prompt_BT], want[prompt_BT], atol=2e-5)
    np.testing.assert_allclose(got[~prompt_BT], want[~prompt_BT], atol=2e-5)
