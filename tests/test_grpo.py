"""The update: accumulation, the optimiser, and the same numbers on one device and on eight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Loss, Optim
from rlif_jax.grpo import (
    decayed,
    init_state,
    learning_rate,
    make_gradient,
    make_optimizer,
    make_update,
    mini_batches,
    train_batch,
)
from rlif_jax.sharding import batch_sharding, make_mesh, param_shardings

B, P, C = 8, 6, 7
SETTINGS = {"temperature": 0.8, "max_new_tokens": 10}


def rollout_and_stats():
    """Eight rows in groups of two that share their prompt, of unequal lengths, and two scorings."""
    rng = np.random.default_rng(3)
    prompt_length = rng.integers(1, P + 1, B // 2)
    length = rng.integers(1, C + 1, B)
    zeros = jnp.zeros((B, C), jnp.float32)
    stats = TokenStats(zeros, zeros, zeros, zeros, zeros)
    rollout = Rollout(
        prompts=Prompts(
            tokens=jnp.asarray(rng.integers(3, 250, (B // 2, P)), jnp.int32),
            mask=jnp.asarray(np.arange(P) >= P - prompt_length[:, None]),
        ),
        tokens=jnp.asarray(rng.integers(3, 250, (B, C)), jnp.int32),
        mask=jnp.asarray(np.arange(C) < length[:, None]),
        stats=stats,
        truncated=jnp.zeros(B, bool),
        length=jnp.asarray(length, jnp.int32),
    )
    old, reference = (
        stats.replace(logprob=jnp.asarray(rng.normal(-5, 1, (B, C)), jnp.float32)) for _ in "or"
    )
    return rollout, old, reference


def make_batch(samples_per_row=1):
    advantage_B = jnp.asarray(np.random.default_rng(4).normal(size=B), jnp.float32)
    rollout, old, reference = rollout_and_stats()
    return train_batch(rollout, advantage_B, old, reference, samples_per_row)


@pytest.fixture(scope="module")
def batch():
    return make_batch()


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_a_shared_prompt_gives_the_gradient_of_separate_rows(tiny, batch):
    graphdef, params, _ = tiny
    loss = Loss(micro_batches=2, kl_coef=0.1, entropy_coef=0.01)
    gradient = jax.jit(make_gradient(graphdef, loss, **SETTINGS))
    grads, metrics = gradient(params, batch)
    shared_grads, shared_metrics = gradient(params, make_batch(samples_per_row=2))
    close(shared_grads, grads, rtol=1e-4, atol=1e-6)
    close(shared_metrics, metrics, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "dr_grpo"])
@pytest.mark.slow
def test_accumulation_gives_the_gradient_of_one_batch(tiny, batch, aggregation):
    graphdef, params, _ = tiny
    results = []
    for pieces in (1, 2, 8):
        loss = Loss(aggregation=aggregation, micro_batches=pieces, kl_coef=0.1, entropy_coef=0.01)
        results.append(jax.jit(make_gradient(graphdef, loss, **SETTINGS))(params, batch))
    (whole, whole_metrics), *others = results
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(whole)) > 1e-3
    for grads, metrics in others:
        close(grads, whole, rtol=1e-4, atol=1e-6)
        close(metrics, whole_metrics, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_one_device_and_eight_give_the_same_update(tiny, batch):
    """Loss, gradients and updated parameters on a (data 2, fsdp 2, tensor 2) mesh."""
    graphdef, params, _ = tiny
    loss, optimizer = Loss(micro_batches=2, kl_coef=0.1), make_optimizer(Optim(learning_rate=1e-3))

    def run(place_params, place_batch):
        placed, rows = place_params(params), place_batch(batch)
        grads, metrics = jax.jit(make_gradient(graphdef, loss, **SETTINGS))(placed, rows)
        copy = jax.tree.map(jnp.copy, placed)
        update = make_update(graphdef, optimizer, loss, **SETTINGS)
        start = init_state(copy, optimizer)
        places = jax.tree.map(lambda x: x.sharding, start)
        state, update_metrics = update(start, rows)
        # So that the second step runs what was compiled for the first.
        assert jax.tree.map(lambda x: x.sharding, state) == places
        return jax.device_get((grads, metrics, state.params, update_metrics))

    alone = run(lambda p: p, lambda b: b)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        spread = run(
            lambda p: jax.device_put(p, param_shardings(p, mesh)),
            lambda b: jax.device_put(b, batch_sharding(mesh)),
        )
    close(spread[0], alone[0], rtol=2e-4, atol=2e-6)
    close(spread[1], alone[1], rtol=1e-5, atol=1e-6)
    # Adam divides by the root of the second moment: where a gradient is rounding noise the first
    # step is too, so parameters are compared at the size of a step.
    close(spread[2], alone[2], atol=2e-5)
    close(spread[3], alone[3], rtol=1e-4, atol=1e-6)


def test_decay_spares_norms_and_biases(tiny):
    flags = decayed(tiny[1])
    named = {
        jax.tree_util.keystr(path): flag
        for path, flag in jax.tree_util.tree_leaves_with_path(flags)
    }
    assert {flag for name, flag in named.items() if "norm" in name} == {False}
    assert {flag for name, flag in named.items() if "norm" not in name} == {True}
    assert decayed({"layers": {"q_bias": jnp.zeros(3), "q": jnp.zeros(3)}}) == {
        "layers": {"q_bias": False, "q": True}
    }


def test_no_gradient_means_decay_alone(tiny, batch):
    graphdef, params, _ = tiny
    optim = Optim(learning_rate=0.1, warmup_steps=1, weight_decay=0.5)
    optimizer = make_optimizer(optim)
    still = dataclasses.replace(batch, advantage=jnp.zeros((B, 1)))
    update = make_update(graphdef, optimizer, Loss(micro_batches=1), **SETTINGS)
    state, metrics = update(init_state(jax.tree.map(jnp.copy, params), optimizer), still)
    assert metrics["grad/norm"] == 0
    embed, norm = params["embed"].get_value(), params["final_norm"].get_value()
    close(state.params["embed"].get_value(), embed * 0.95, rtol=1e-5)
    close(state.params["final_norm"].get_value(), norm, rtol=0)


def test_warm_up_rises_linearly_by_steps_and_starts_above_zero():
    schedule = learning_rate(Optim(learning_rate=2.0, warmup_steps=4))
    assert [float(schedule(i)) for i in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    schedule = learning_rate(Optim(learning_rate=2.0, warmup_steps=3), updates_per_step=2)
    rates = [2 / 3, 2 / 3, 4 / 3, 4 / 3, 2, 2, 2, 2]
    assert [float(schedule(i)) for i in range(8)] == pytest.approx(rates)
    assert float(learning_rate(Optim(learning_rate=2.0, warmup_steps=0))(0)) == 2.0


def test_gradients_are_clipped_to_the_norm(tiny):
    params = tiny[1]
    grads = jax.tree.map(lambda x: jnp.full_like(x, 3.0), params)
    adam_of = {}
    for norm in (1.0, 1e9):
        optimizer = make_optimizer(Optim(clip_norm=norm, b1=0.0))
        _, state = optimizer.update(grads, optimizer.init(params), params)
        mu = next(x for x in jax.tree.leaves(state) if x.shape == params["embed"].shape)
        adam_of[norm] = float(mu[0, 0])
    count = sum(x.size for x in jax.tree.leaves(params))
    assert adam_of[1e9] == pytest.approx(3.0)
    assert adam_of[1.0] == pytest.approx(1 / np.sqrt(count), rel=1e-4)


def test_mini_batches_keep_order_and_repeat_each_epoch(batch):
    loss = Loss(epochs=2, mini_batches=4)
    minis = list(mini_batches(batch, loss))
    assert len(minis) == 8
    for epoch in (0, 4):
        joined = jnp.concatenate([m.sequences.tokens for m in minis[epoch : epoch + 4]])
        assert (joined == batch.sequences.tokens).all()
    assert minis[0].advantage.shape == (2, 1)


def test_learning_moves_probability_towards_the_rewarded(tiny, batch):
    """Rows with positive advantage become likelier, the others less likely."""
    graphdef, params, _ = tiny
    optimizer = make_optimizer(Optim(learning_rate=1e-3, warmup_steps=0, weight_decay=0.0))
    loss = Loss(micro_batches=1)
    signs = jnp.asarray([1.0, -1.0] * (B // 2))
    gradient = jax.jit(make_gradient(graphdef, loss, **SETTINGS))
    update = make_update(graphdef, optimizer, loss, **SETTINGS)

    def logprob(p):
        from flax import nnx

        from rlif_jax.scoring import completion_stats

        model = nnx.merge(graphdef, p)
        stats = completion_stats(model, batch.sequences, 0.8)
        return jnp.where(batch.completion_mask, stats.logprob, 0.0)

    before = logprob(params)
    on_policy = dataclasses.replace(
        batch, advantage=signs[:, None], old_logprob=before, ref_logprob=None
    )
    _, metrics = gradient(params, on_policy)
    assert float(metrics["loss/clip_fraction"]) == 0
    state, _ = update(init_state(jax.tree.map(jnp.copy, params), optimizer), on_policy)
    moved_B = (logprob(state.params) - before).sum(axis=(1, 2))
    assert (jnp.sign(moved_B) == signs).all()
