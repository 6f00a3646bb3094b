"""The programs of a run, as its configuration asks for them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from rlif_jax.batch import Rollout, TokenStats
from rlif_jax.config import Config, Data, Loss, Optim, Reward, Sampling
from rlif_jax.grpo import init_state, state_shapes, train_batch
from rlif_jax.programs import make_programs
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.scoring import make_score

N, G, P, C = 4, 2, 6, 5
TEMPERATURE, REWARD_TEMPERATURE = 0.9, 0.4


def configured(**changes) -> Config:
    return Config(
        data=Data(prompts_per_step=N),
        sampling=Sampling(samples_per_prompt=G, temperature=TEMPERATURE, max_new_tokens=C),
        **{"loss": Loss(micro_batches=2), **changes},
    )


@pytest.fixture(scope="module")
def rollout():
    """Rows of unequal lengths in groups that share their prompt."""
    rng = np.random.default_rng(0)
    B, length_B = N * G, rng.integers(1, C + 1, N * G)
    zeros = jnp.zeros((B, C), jnp.float32)
    return Rollout(
        prompt_tokens=jnp.asarray(np.repeat(rng.integers(3, 250, (N, P)), G, 0), jnp.int32),
        prompt_mask=jnp.ones((B, P), bool),
        tokens=jnp.asarray(rng.integers(3, 250, (B, C)), jnp.int32),
        mask=jnp.asarray(np.arange(C) < length_B[:, None]),
        stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
        truncated=jnp.zeros(B, bool),
        length=jnp.asarray(length_B, jnp.int32),
    )


def product_flops(jaxpr: Jaxpr) -> int:
    """Multiplications and additions of all matrix products, turns of loops counted."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        turns = equation.params.get("length", 1)
        for inner in jax.tree.leaves(list(equation.params.values())):
            if isinstance(inner, ClosedJaxpr):
                total += turns * product_flops(inner.jaxpr)
    return total


def flops(score, params, rollout) -> int:
    def policy_and_reward(params, rollout):
        scores = score(params, None, rollout)
        return scores.policy, scores.reward

    return product_flops(jax.make_jaxpr(policy_and_reward)(params, rollout).jaxpr)


def test_a_reward_temperature_costs_no_second_forward_pass(tiny, rollout):
    graphdef, params, tokenizer = tiny
    both = configured(reward=Reward(reward_temperature=REWARD_TEMPERATURE))
    plain, other = (make_programs(c, graphdef, tokenizer).score for c in (configured(), both))
    once = flops(plain, params, rollout)
    layers = sum(x.size for x in jax.tree.leaves(params["layers"]))
    assert once > 2 * N * ((P + G * C) * layers + G * C * params["embed"].size)  # and attention
    assert flops(other, params, rollout) == once

    scores = other(params, None, rollout)
    for stats, temperature in (
        (scores.policy, TEMPERATURE),
        (scores.reward, REWARD_TEMPERATURE),
    ):
        alone = make_score(graphdef, temperature=temperature)(params, rollout)
        for name, want in dataclasses.asdict(alone).items():
            got = np.asarray(getattr(stats, name))[rollout.mask]
            np.testing.assert_allclose(got, np.asarray(want)[rollout.mask], rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(scores.policy.entropy - scores.reward.entropy).max()) > 0.1


def test_equal_temperatures_are_scored_once(tiny, rollout):
    graphdef, params, tokenizer = tiny
    scores = make_programs(configured(), graphdef, tokenizer).score(params, params, rollout)
    assert scores.reward is scores.policy
    np.testing.assert_array_equal(scores.reference.logprob, scores.policy.logprob)


def test_warm_up_counts_training_steps_across_a_resume(tiny, rollout, tmp_path):
    """The rates of each step, read from weight decay alone: all advantages are 0."""
    graphdef, params, tokenizer = tiny
    rate, decay, warmup = 0.1, 0.5, 3
    cfg = configured(
        loss=Loss(micro_batches=1, mini_batches=2, epochs=3),
        optim=Optim(learning_rate=rate, warmup_steps=warmup, weight_decay=decay),
    )
    programs = make_programs(cfg, graphdef, tokenizer)
    batch = train_batch(rollout, jnp.zeros(N * G), rollout.stats, None, G)
    state = init_state(jax.tree.map(jnp.copy, params), programs.optimizer)
    want = np.asarray(params["embed"].get_value())
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    for step in range(1, 6):
        state, metrics = programs.update(state, batch)
        assert len(metrics) == 6
        want = want * (1 - decay * rate * min(1.0, step / warmup)) ** 6
        np.testing.assert_allclose(state.params["embed"].get_value(), want, rtol=1e-5)
        if step == 2:
            checkpoints.save(step, state, jax.random.key(0), {})
            state, _, _ = checkpoints.restore(state_shapes(params, programs.optimizer))
    checkpoints.close()
    assert int(state.step) == 5
