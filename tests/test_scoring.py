"""Scoring: the one shift, padding, pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.scoring import join_rows, make_score, sequences, split_rows


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
    stats = make_score(graphdef, temperature=temperature)(params, rollout)
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
    one = make_score(tiny[0], temperature=1.0)(tiny[1], rollout)
    four = make_score(tiny[0], temperature=1.0, micro_batches=4)(tiny[1], rollout)
    mask = np.asarray(rollout.mask)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a)[mask], np.asarray(b)[mask], rtol=1e-5, atol=1e-5
        ),
        one,
        four,
    )


def test_positions_count_real_tokens(rollout):
    rows = sequences(rollout)
    assert rows.position[1].tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3]
    assert rows.mask[1].tolist() == [False] * 2 + [True] * 4 + [False] * 5
    shared = sequences(same_prompt(rollout), 4)
    assert shared.tokens.shape == (1, 5 + 4 * 6)
    assert shared.position[0].tolist() == [
        *[0, 0, 0, 1, 2],
        *[3, 4, 5, 6, 7, 8],
        *[3, 3, 3, 3, 3, 3],
        *[3, 4, 5, 6, 6, 6],
        *[3, 4, 5, 5, 5, 5],
    ]


def same_prompt(rollout):
    """The rollout as four samples of the prompt of row 1."""
    return rollout.replace(prompts=jax.tree.map(lambda x: x[1:2], rollout.prompts))


@pytest.mark.parametrize("share", [2, 4])
def test_a_shared_prompt_gives_the_same_numbers(tiny, rollout, share):
    """Completions behind one copy of their prompt do not see one another."""
    grouped = same_prompt(rollout)
    alone = make_score(tiny[0], temperature=0.9)(tiny[1], grouped)
    shared = make_score(tiny[0], temperature=0.9, samples_per_row=share)(tiny[1], grouped)
    mask = np.asarray(rollout.mask)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a)[mask], np.asarray(b)[mask], rtol=2e-5, atol=2e-5
        ),
        alone,
        shared,
    )


def test_split_and_join_are_inverse_and_strided():
    tree = {"a": jnp.arange(12), "b": jnp.arange(24).reshape(12, 2)}
    pieces = split_rows(tree, 3)
    assert pieces["a"].tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    back = join_rows(pieces)
    assert all((back[k] == tree[k]).all() for k in tree)
