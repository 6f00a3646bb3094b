"""Scoring: each token from what stands before it, however sequences are packed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.packed import assert_close, packed, scored

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.scoring import Score, make_scores


@pytest.fixture(scope="module")
def rollout():
    """Four rows with prompts of 1, 3, 5, 2 tokens and completions of 6, 1, 4, 3, hand-padded."""
    rng = np.random.default_rng(0)
    P, C = 5, 6
    prompt_lengths, lengths = [1, 3, 5, 2], [6, 1, 4, 3]
    zeros = jnp.zeros((4, C), jnp.float32)
    return Rollout(
        prompts=Prompts(
            tokens=jnp.asarray(rng.integers(3, 250, (4, P)), jnp.int32),
            mask=jnp.asarray([[p >= P - n for p in range(P)] for n in prompt_lengths]),
        ),
        tokens=jnp.asarray(rng.integers(3, 250, (4, C)), jnp.int32),
        mask=jnp.asarray([[t < n for t in range(C)] for n in lengths]),
        stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
        truncated=jnp.zeros(4, bool),
        length=jnp.asarray(lengths, jnp.int32),
    )


def test_each_token_is_scored_from_what_stands_before_it(tiny, rollout):
    """Against the logits of each row alone, without padding, in float64."""
    graphdef, params, _ = tiny
    model, temperature = nnx.merge(graphdef, params), 0.7
    stats = scored(graphdef, params, rollout, temperature)
    for row in range(4):
        prompt = np.asarray(rollout.prompts.tokens[row])[np.asarray(rollout.prompts.mask[row])]
        completion = np.asarray(rollout.tokens[row])[np.asarray(rollout.mask[row])]
        whole = jnp.asarray(np.concatenate([prompt, completion]))[None]
        positions = jnp.arange(whole.shape[1])[None]
        z = np.asarray(model.logits(whole, positions, jnp.ones_like(whole, bool)), np.float64)
        z = z[0] / temperature
        logp = z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))
        logp -= z.max(-1, keepdims=True)
        for t, token in enumerate(completion):
            at = len(prompt) + t - 1  # the position that has seen everything before the token
            p = np.sort(np.exp(logp[at]))
            expected = {
                "logprob": logp[at, token],
                "entropy": -(np.exp(logp[at]) * logp[at]).sum(),
                "self_certainty": -logp[at].mean(),
                "top1": p[-1],
                "top2": p[-2],
            }
            for name, value in expected.items():
                assert getattr(stats, name)[row, t] == pytest.approx(value, abs=2e-5, rel=2e-5)


def test_pieces_do_not_change_the_numbers(tiny, rollout):
    whole = scored(*tiny[:2], rollout, 1.0, tokens=64)
    one_each = scored(*tiny[:2], rollout, 1.0)
    assert packed(rollout, 64)[0].packed.count == 1 < packed(rollout)[0].packed.count
    assert_close(one_each, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [10, 64], ids="rows of {}".format)
def test_a_shared_prompt_gives_the_same_numbers(tiny, rollout, tokens):
    """Completions behind one copy of their prompt do not see one another."""
    grouped = rollout.replace(prompts=jax.tree.map(lambda x: x[2:3], rollout.prompts))
    alone = scored(*tiny[:2], grouped, 0.9)
    shared = scored(*tiny[:2], grouped, 0.9, tokens=tokens, shared=True)
    assert_close(shared, alone, rtol=2e-5, atol=2e-5)


def test_only_what_holds_sequences_is_computed(tiny, rollout):
    (packing,) = packed(rollout)
    p = packing.packed
    (stats,) = make_scores(tiny[0], temperatures=(1.0,), shared=False)(tiny[1], p)
    for m in range(p.tokens.shape[0]):
        assert bool((stats.entropy[m] > 0).any()) == (m < p.count)


def test_with_the_samplers_statistics_the_first_mini_batch_is_not_scored(tiny, rollout):
    scores = make_scores(tiny[0], temperatures=(1.0,), shared=False)
    calls = []

    def counted(params, packed):
        calls.append(packed)
        return scores(params, packed)

    whole = scored(*tiny[:2], rollout, 1.0)
    score, params = Score(counted, None, from_sampler=True), tiny[1]
    for mini_batches in (1, 2):
        calls.clear()
        packings = packed(rollout, mini_batches=mini_batches)
        policy, reward = score.certainty(params, rollout, lambda _: pytest.fail("it was packed"))
        assert policy is None and reward is rollout.stats
        first, *later = score.old_logprobs(params, policy, packings, rollout.tokens.shape[1])
        assert first is None and len(calls) == len(later) == mini_batches - 1
        for logprob_BC in later:
            np.testing.assert_allclose(logprob_BC, whole.logprob[2:], rtol=1e-5, atol=1e-5)


def test_mini_batches_take_the_log_probabilities_that_were_scored(tiny, rollout):
    score = Score(make_scores(tiny[0], temperatures=(1.0,), shared=False), None, False)
    policy, _ = score.certainty(tiny[1], rollout, packed)
    halves = score.old_logprobs(tiny[1], policy, packed(rollout, mini_batches=2), 6)
    np.testing.assert_array_equal(np.concatenate(halves), policy.logprob)
    assert [len(half) for half in halves] == [2, 2]
