"""Rounds of sampling: which groups are trained on, and all rounds as one."""

import jax
import numpy as np
import pytest

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Sampling
from rlif_jax.experience import (
    Experience,
    informative_experience,
    of_groups,
    rollout_of_groups,
)
from rlif_jax.problem import Outcome, Problem, Verdict
from rlif_jax.sampler.engine import Usage
from rlif_jax.submissions import Answers

N, G, C, P = 2, 3, 4, 2


def drawn(first: int, reward_NG, open_N=(True,) * N) -> Experience:
    """N problems, numbered from `first`; every token of group n is 10 * n + its row."""
    B = N * G
    rows = np.repeat(10 * (first + np.arange(N)), G) + np.tile(np.arange(G), N)
    values = np.broadcast_to(rows[:, None], (B, C)).astype(np.float32)
    return Experience(
        problems=tuple(Problem(f"p{first + n}", "?", ()) for n in range(N)),
        prompts=(),
        rollout=Rollout(
            prompts=Prompts(np.full((N, P), first, np.int32), np.ones((N, P), bool)),
            tokens=values.astype(np.int32),
            mask=np.ones((B, C), bool),
            stats=TokenStats(*(values,) * 5),
            truncated=np.zeros(B, bool),
            length=np.full(B, C, np.int32),
        ),
        policy=TokenStats(*(values + 0.5,) * 5),
        answers=Answers(
            tuple(f"text {r}" for r in rows), (None,) * B, (Outcome(Verdict.PASSED, 1, 1, 0.1),) * B
        ),
        reward=np.asarray(reward_NG, np.float32).reshape(-1),
        terms={"half": np.asarray(reward_NG, np.float32).reshape(-1) / 2},
        usage=Usage(slot_steps=100, useful=24, steps=4, chunks=1, prefills=N),
        keys=np.stack([rows, rows + 1], axis=1).astype(np.uint32),
        open=np.array(open_N),
    )


ALIKE, APART = [1, 1, 1], [0, 1, 1]


def after(rounds, max_refills, opens=None):
    """What is made of these rounds, and the keys that they got; all their groups are open."""
    opens = opens or [(True,) * N] * len(rounds)
    cfg = Config(
        data=Data(prompts_per_step=N, max_refills=max_refills),
        sampling=Sampling(samples_per_prompt=G, max_new_tokens=C),
    )
    made = [drawn(N * i, *one) for i, one in enumerate(zip(rounds, opens, strict=True))]
    keys, waiting = [], iter(made)

    def one_round(key):
        keys.append(key)
        return next(waiting)

    seen, groups = informative_experience(cfg, one_round, jax.random.key(7))
    return seen, groups.tolist(), keys


@pytest.mark.parametrize(
    ("rounds", "max_refills", "groups"),
    [
        ([[ALIKE, ALIKE]], 0, [0, 1]),
        ([[APART, APART]], 5, [0, 1]),
        ([[ALIKE, APART], [APART, APART]], 5, [1, 2]),
        ([[ALIKE, APART], [ALIKE, ALIKE], [ALIKE, APART]], 5, [1, 5]),
        ([[ALIKE, ALIKE], [ALIKE, APART]], 1, [0, 3]),
        ([[ALIKE, ALIKE], [ALIKE, ALIKE]], 1, [0, 1]),
    ],
)
def test_groups_that_differ_come_first(rounds, max_refills, groups):
    seen, chosen, keys = after(rounds, max_refills)
    assert chosen == groups
    assert len(keys) == len(rounds)  # no round more than it takes
    assert [p.id for p in seen.problems] == [f"p{n}" for n in range(N * len(rounds))]
    data = [tuple(jax.random.key_data(key).tolist()) for key in keys]
    assert data[0] == tuple(jax.random.key_data(jax.random.key(7)).tolist())
    assert len(set(data)) == len(data)


@pytest.mark.parametrize(
    ("opens", "max_refills", "groups"),
    [
        ([(True, False)], 0, [0, 1]),  # nothing may be drawn in its place
        ([(True, False), (False, True)], 5, [0, 3]),
        ([(False, False), (False, True)], 1, [0, 3]),
        ([(True, True)], 5, [0, 1]),
    ],
)
def test_closed_groups_are_replaced_whatever_their_rewards(opens, max_refills, groups):
    seen, chosen, keys = after([[APART, APART]] * len(opens), max_refills, opens)
    assert chosen == groups and len(keys) == len(opens)
    assert seen.open.tolist() == [one for some in opens for one in some]


def test_rounds_are_joined_row_by_row():
    seen, groups, _ = after([[ALIKE, APART], [APART, APART]], 1)
    tokens = [*range(3), *range(10, 13), *range(20, 23), *range(30, 33)]
    assert seen.rollout.tokens[:, 0].tolist() == tokens
    assert seen.policy.entropy[:, -1].tolist() == [t + 0.5 for t in tokens]
    assert seen.reward.tolist() == [1, 1, 1, *[0, 1, 1] * 3]
    assert seen.terms["half"].tolist() == [r / 2 for r in seen.reward]
    assert seen.answers.texts == tuple(f"text {t}" for t in tokens)
    assert len(seen.answers.outcomes) == len(tokens)
    assert seen.keys.tolist() == [[t, t + 1] for t in tokens]
    assert seen.usage == Usage(slot_steps=200, useful=48, steps=8, chunks=2, prefills=4)

    chosen = rollout_of_groups(seen.rollout, np.asarray(groups), G)
    assert chosen.tokens[:, 0].tolist() == tokens[3:9]
    assert chosen.prompts.tokens[:, 0].tolist() == [0, 2]
    assert of_groups(seen.reward, np.asarray(groups), G).tolist() == [0, 1, 1, 0, 1, 1]
