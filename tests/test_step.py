"""The stages of a run, as its configuration asks for them, wired in one place."""

import ast
import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from support import ROOT
from support.packed import assert_close, batches_of
from support.packed import scored as packed_and_scored
from support.tiny import write_problems

from rlif_jax import prepare, train
from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Loss, Optim, Reward, Sampling
from rlif_jax.optimizer import init_state, state_shapes
from rlif_jax.packing import pack_rollout
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.step import make_stages, packed_form

N, G, P, C = 4, 2, 6, 5
TEMPERATURE, REWARD_TEMPERATURE = 0.9, 0.4


def configured(**changes) -> Config:
    return Config(
        data=Data(prompts_per_step=N),
        sampling=Sampling(samples_per_prompt=G, temperature=TEMPERATURE, max_new_tokens=C),
        **changes,
    )


def drawn(rng, N: int, G: int, P: int, C: int, longest: int) -> Rollout:
    """Completions of 1 to `longest` random tokens, in groups that share their prompt."""
    B = N * G
    length_B = rng.integers(1, longest + 1, B)
    length_B[-1] = longest
    zeros = np.zeros((B, C), np.float32)
    return Rollout(
        prompts=Prompts(
            tokens=rng.integers(3, 250, (N, P)).astype(np.int32), mask=np.ones((N, P), bool)
        ),
        tokens=rng.integers(3, 250, (B, C)).astype(np.int32),
        mask=np.arange(C) < length_B[:, None],
        stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
        truncated=np.zeros(B, bool),
        length=length_B.astype(np.int32),
    )


@pytest.fixture(scope="module")
def rollout():
    return drawn(np.random.default_rng(0), N, G, P, C, C)


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


def test_a_reward_temperature_costs_no_second_forward_pass(tiny, rollout):
    graphdef, params, _ = tiny
    both = configured(reward=Reward(reward_temperature=REWARD_TEMPERATURE))
    plain, other = (make_stages(c, graphdef, 2) for c in (configured(), both))
    packings = pack_rollout(rollout, other.form)
    packed = packings[0].packed

    def flops(scores):
        return product_flops(scores.trace(params, packed).jaxpr.jaxpr)

    once, (_, R, T) = flops(plain.score.at_sampling), other.form.shape
    layers = sum(x.size for x in jax.tree.leaves(params["layers"]))
    assert once > 2 * R * T * (layers + params["embed"].size)  # of a micro-batch; and attention
    assert flops(other.score.at_both) == once

    policy, reward = other.score.certainty(params, rollout, other.pack)
    for stats, temperature in ((policy, TEMPERATURE), (reward, REWARD_TEMPERATURE)):
        alone = packed_and_scored(graphdef, params, rollout, temperature)
        assert_close(stats, alone, rtol=1e-5, atol=1e-5)
    assert float(np.abs(policy.entropy - reward.entropy).max()) > 0.1


def test_equal_temperatures_are_scored_once(tiny, rollout):
    graphdef, params, _ = tiny
    stages = make_stages(configured(), graphdef, 2)
    policy, reward = stages.score.certainty(params, rollout, stages.pack)
    assert reward is policy
    packings = stages.pack(rollout)
    anchor = stages.score.reference(params, packings, C)
    np.testing.assert_array_equal(anchor.logprob, policy.logprob)
    (old_BC,) = stages.score.old_logprobs(params, policy, packings, C)
    np.testing.assert_array_equal(old_BC, policy.logprob)


def test_warm_up_counts_training_steps_across_a_resume(tiny, rollout, tmp_path):
    """The rates of each step, read from weight decay alone: all advantages are 0."""
    graphdef, params, _ = tiny
    rate, decay, warmup = 0.1, 0.5, 3
    cfg = configured(
        loss=Loss(mini_batches=2, epochs=3),
        optim=Optim(learning_rate=rate, warmup_steps=warmup, weight_decay=decay),
    )
    stages = make_stages(cfg, graphdef, 2)
    batches = batches_of(stages, cfg, params, rollout, np.zeros(N * G))
    state = init_state(jax.tree.map(jnp.copy, params), stages.optimizer)
    want = np.asarray(params["embed"].get_value())
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    for step in range(1, 6):
        for batch in batches * cfg.loss.epochs:
            state, _, _ = stages.update(state, batch)
        state = dataclasses.replace(state, step=state.step + 1)
        want = want * (1 - decay * rate * min(1.0, step / warmup)) ** 6
        np.testing.assert_allclose(state.params["embed"].get_value(), want, rtol=1e-5)
        if step == 2:
            checkpoints.save(step, state, jax.random.key(0), {})
            state, _, _ = checkpoints.restore(state_shapes(params, stages.optimizer))
    checkpoints.close()
    assert int(state.step) == 5


@pytest.mark.slow
def test_lengths_that_grow_compile_nothing(tiny):
    """Completions of 8 tokens at first and of 512 at last: one shape of scoring and of updating."""
    graphdef, params, _ = tiny
    cfg = dataclasses.replace(
        configured(),
        data=Data(prompts_per_step=2, max_prompt_tokens=16),
        sampling=Sampling(samples_per_prompt=2, max_new_tokens=512),
    )
    stages = make_stages(cfg, graphdef, 2)
    state = init_state(jax.tree.map(jnp.copy, params), stages.optimizer)
    used = []
    for longest in (8, 40, 150, 512):
        rollout = drawn(np.random.default_rng(longest), 2, 2, 16, 512, longest)
        advantage_B = np.array([1, -1, -1, 1], np.float32)
        (batch,) = batches_of(stages, cfg, state.params, rollout, advantage_B)
        state, metrics, _ = stages.update(state, batch)
        assert np.isfinite(float(metrics["grad/norm"]))
        used.append(int(batch.packed.count))
    assert stages.score.at_sampling._cache_size() == stages.update._cache_size() == 1
    assert used[0] == 1 < used[-1] <= stages.form.pieces


@pytest.mark.parametrize(
    ("loss", "prompt", "new", "samples", "columns"),
    [
        (Loss(), 200, 64, 8, 720),  # 199 + 8 x 64 = 711, in sixteens
        (Loss(), 16, 32, 4, 512),  # a narrower row would not pay
        (Loss(), 200, 64, 16, 1024),
        (Loss(), 700, 600, 2, 1312),  # the longest sequence, as anywhere
        (Loss(shared_prompts=False), 200, 64, 8, 1024),
        (Loss(tokens_per_micro_batch=900), 200, 64, 8, 912),
    ],
)
def test_a_row_on_a_cpu_is_a_prompt_with_its_samples(loss, prompt, new, samples, columns):
    cfg = Config(
        data=Data(max_prompt_tokens=prompt),
        sampling=Sampling(samples_per_prompt=samples, max_new_tokens=new),
        loss=loss,
    )
    assert packed_form(cfg).columns == columns


FACTORIES = {
    *("Engine", "make_sample", "make_prefill", "make_admit", "make_decode_chunk", "make_narrow"),
    *("make_sync", "make_scores", "make_optimizer", "make_update"),
}
COMPILED_AHEAD = ["test_state.py", "test_tpu.py", "test_tpu_decode.py"]


def imported(path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {a.name for node in nodes if isinstance(node, ast.ImportFrom) for a in node.names}


@pytest.mark.parametrize("name", ["rlif_jax/prepare.py", *(f"tests/{n}" for n in COMPILED_AHEAD)])
def test_stages_are_taken_from_make_stages(name):
    """What is compiled ahead of time and what train runs are wired in one place, step.py."""
    names = imported(ROOT / name)
    assert names & {"make_stages", "StagesAhead"}  # StagesAhead lowers the stages of make_stages
    # Sync has a stage for each array: a test compiles them by giving it the planner's jit.
    assert names & FACTORIES <= ({"make_sync"} if "StagesAhead" in names else set())


@pytest.mark.slow
def test_train_runs_the_stages_of_make_stages(tiny_path, tmp_path, monkeypatch):
    made = []

    def spy(*args):
        made.append((args[0], make_stages(*args)))
        return made[-1][1]

    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "make_stages", spy)
    cfg = configured(reward=Reward(terms=(("self_certainty", 1.0),)))
    train.train(
        dataclasses.replace(
            cfg,
            run_dir=str(tmp_path / "run"),
            steps=1,
            model=dataclasses.replace(cfg.model, source=str(tiny_path)),
            data=Data(name=str(write_problems(tmp_path / "adding.jsonl")), prompts_per_step=N),
            execution=dataclasses.replace(cfg.execution, monitor=False),
            eval=dataclasses.replace(cfg.eval, every=0),
        )
    )
    ((shaped, stages),) = made
    assert shaped.data.max_prompt_tokens < Data().max_prompt_tokens  # the longest that there is
    engine = stages.engine
    for stage in (engine.prefill, engine.admit, engine.decode_chunk, stages.update):
        assert stage._cache_size() == 1
    assert stages.score.at_sampling._cache_size() == 1 and stages.score.at_both is None
    (line,) = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["grad/norm"] > 0
