"""A teacher that samples beside the policy: its programs are judged and vote, and teach nothing."""

import dataclasses
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tokenizers_of_kinds import byte_level

from rlif_jax import config
from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Reward, Sampling
from rlif_jax.console.notice import ignore
from rlif_jax.data.prompts import EncodedPrompt
from rlif_jax.execution.pool import Judge
from rlif_jax.experience import Questions, experience, joined
from rlif_jax.metrics import teacher_metrics
from rlif_jax.problem import Problem, Test
from rlif_jax.run.clock import Clock
from rlif_jax.run.policy import Policy
from rlif_jax.sampler.engine import Usage
from rlif_jax.step import DecodeCopy
from rlif_jax.step_record import StepRecord
from rlif_jax.submissions import Submissions

G, C = 4, 64
TWICE, MORE, NONE = "```\ndef f(n): return 2 * n\n```", "```\ndef f(n): return n + 2\n```", "?"
TESTS = (Test("1", "2", "functional"), Test("2", "4", "functional"))
PROBLEM = Problem("double", "Double.", TESTS, entry_point="f")
VOTED_ON = dataclasses.replace(PROBLEM, tests=(Test("5", "null", "functional"),))
POLICY, TEACHER = (TWICE, MORE, NONE, TWICE), (MORE, MORE, TWICE, NONE)


@pytest.fixture(scope="module")
def judge():
    with Judge(config.Execution(workers=1, time_limit_s=2.0, memory_mb=256), True) as judge:
        yield judge


def drawing(texts, keys):
    """A sampler that draws these texts; it notes its keys."""
    rows = [byte_level()(text).input_ids[:C] for text in texts]
    tokens = np.zeros((G, C), np.int32)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
    length_B = np.array([len(ids) for ids in rows], np.int32)
    zeros = np.zeros((G, C), np.float32)

    def draw(prompts, key, finished):
        keys.append(key)
        finished(np.arange(G), [np.array(ids, np.int32) for ids in rows])
        rollout = Rollout(
            prompts=Prompts(np.zeros((1, 2), np.int32), np.ones((1, 2), bool)),
            tokens=tokens,
            mask=np.arange(C) < length_B[:, None],
            stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
            truncated=np.zeros(G, bool),
            length=length_B,
        )
        return rollout, Usage(slot_steps=100, useful=int(length_B.sum()))

    return draw


def round_of(judge, pool, vote_on=None):
    """A round in which both draw, and the keys of the teacher and of the policy."""

    def desk():
        prompts = [EncodedPrompt("", [])]
        return Submissions([PROBLEM], prompts, G, byte_level(), judge, vote_on=vote_on)

    cfg = Config(
        data=Data(prompts_per_step=1),
        sampling=Sampling(samples_per_prompt=G, max_new_tokens=C),
        reward=Reward(terms=(("teacher_vote", 1.0),), teacher_pool=pool),
    )
    keys = []
    seen = experience(
        cfg,
        drawing(POLICY, keys),
        lambda rollout: (None, rollout.stats),
        lambda: Questions([PROBLEM], [EncodedPrompt("", [])], desk(), teacher=desk()),
        jax.random.key(3),
        Clock(),
        ignore,
        drawing(TEACHER, keys),
    )
    return seen, keys


@pytest.mark.parametrize(
    ("pool", "reward"),
    [("teacher", [0, 1, 0, 0]), ("joint", [1, 1, 0, 1])],  # of both, three of either class
)
def test_a_round_by_hand(judge, pool, reward):
    seen, keys = round_of(judge, pool)
    assert seen.reward.tolist() == seen.terms["teacher_vote"].tolist() == reward
    assert seen.answers.texts == POLICY and seen.taught.texts == TEACHER
    assert [outcome.passed for outcome in seen.taught.outcomes] == [False, False, True, False]
    first, second = (jax.random.key_data(key).tolist() for key in keys)
    assert second == jax.random.key_data(jax.random.split(jax.random.key(3))[0]).tolist() != first
    tokens = sum(len(byte_level()(text).input_ids) for text in (*POLICY, *TEACHER))
    assert (seen.usage.useful, seen.usage.slot_steps) == (tokens, 200)


def test_the_teacher_votes_on_the_inputs_of_votes(judge):
    """On 2 both programs would answer 4; on 5 they differ. The label is held against the tests."""
    seen, _ = round_of(judge, "teacher", {0: VOTED_ON})
    assert seen.reward.tolist() == [0, 1, 0, 0]
    assert [len(outcome.answers) for outcome in seen.taught.votes] == [1, 1, 1, 0]
    same = dataclasses.replace(PROBLEM, tests=(Test("2", "null", "functional"),))
    seen, _ = round_of(judge, "teacher", {0: same})
    assert seen.reward.tolist() == [1, 1, 0, 1]
    record = StepRecord(seen, seen.reward, [], [], Policy(0, ""))
    assert record.sampled_tokens == seen.usage.useful
    measured = teacher_metrics(seen.taught.votes, seen.taught.outcomes, G)
    assert measured == {"exec/teacher_label_accuracy": pytest.approx(1 / 3)}
    both = joined([seen, seen])
    assert both.taught.texts == TEACHER * 2 and both.taught.votes == seen.taught.votes * 2


def test_two_copies_for_sampling_are_never_held():
    made = []

    def sync(params):
        assert [copy for copy in made if copy() is not None] == []
        copy = jax.tree.map(jnp.copy, params)
        made.append(weakref.ref(copy["w"]))
        return copy

    teacher, policy = {"w": jnp.ones(3)}, {"w": jnp.zeros(3)}
    copy = DecodeCopy(sync, ())
    digests = []
    for params in (teacher, teacher, policy, policy, teacher, policy):
        np.testing.assert_array_equal(copy.of(params)["w"], params["w"])
        digests.append(copy.digest)
    assert len(made) == 4
    assert digests[:2] == [digests[4]] * 2 and digests[2:4] == [digests[5]] * 2
    assert digests[0] != digests[2]
    del copy
    assert made[-1]() is None
