"""The update: accumulation, the optimiser, and the same numbers on one device and on eight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.packed import assert_close, packed, scored
from support.small_batch import ADVANTAGE_B, SETTINGS, B, C, make_batch, rollout_and_stats

from rlif_jax.config import Loss, Optim
from rlif_jax.grpo import later_epoch, make_gradient, make_update, train_batch, train_batches
from rlif_jax.optimizer import decayed, init_state, learning_rate, make_optimizer
from rlif_jax.sharding import make_mesh, param_shardings, put_pieces


@pytest.fixture(scope="module")
def batch():
    return make_batch()


def gradient_of(tiny, batch, loss, shared=False):
    graphdef, params, _ = tiny
    gradient = jax.jit(make_gradient(graphdef, loss, **{**SETTINGS, "shared": shared}))
    return gradient(params, batch)[:2]


def test_a_shared_prompt_gives_the_gradient_of_separate_ones(tiny):
    loss, entropy = Loss(kl_coef=0.1), {"entropy_coef": 0.01}
    grads, metrics = gradient_of(tiny, make_batch(**entropy), loss)
    for tokens in (0, 48):
        shared_batch = make_batch(tokens, shared=True, **entropy)
        shared = gradient_of(tiny, shared_batch, loss, shared=True)
        assert_close(shared[0], grads, rtol=1e-4, atol=1e-6)
        assert_close(shared[1], metrics, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        Loss(kl_coef=0.1),
        Loss(aggregation="sequence_mean", kl_coef=0.1),
        Loss(aggregation="dr_grpo"),
        Loss(variant="gspo", dual_clip=None),
    ],
    ids=lambda loss: f"{loss.variant}, {loss.aggregation}",
)
@pytest.mark.slow
def test_pieces_give_the_gradient_of_the_whole(tiny, loss):
    """Of completions side by side in one row, in rows of a few, and each in a row of its own."""
    (whole, whole_metrics), *others = (
        gradient_of(tiny, make_batch(tokens, entropy_coef=0.01), loss) for tokens in (96, 32, 0)
    )
    assert make_batch(96).trained.shape[0] == 1 < make_batch(32).packed.count
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(whole)) > 1e-3
    for grads, metrics in others:
        assert_close(grads, whole, rtol=1e-4, atol=1e-6)
        assert_close(metrics, whole_metrics, rtol=1e-5, atol=1e-6)


def test_packed_equals_each_completion_by_itself(tiny, batch):
    """The gradient of the loss written down for one completion after the other, without packing."""
    graphdef, params, _ = tiny
    rollout, old, _ = rollout_and_stats()
    total_tokens = int(rollout.length.sum())

    def loss(params):
        model, total = nnx.merge(graphdef, params), 0.0
        for b in range(B):
            prompt = rollout.prompts.tokens[b // 2][rollout.prompts.mask[b // 2]]
            completion = rollout.tokens[b, : int(rollout.length[b])]
            row_T = jnp.concatenate([prompt, completion])
            logits_TV = model.logits(row_T[None])[0, len(prompt) - 1 : -1] / SETTINGS["temperature"]
            logp_C = jax.nn.log_softmax(logits_TV)[jnp.arange(len(completion)), completion]
            ratio_C = jnp.exp(logp_C - old.logprob[b, : len(completion)])
            clipped_C = jnp.clip(ratio_C, 0.8, 1.2)
            worse_C = jnp.maximum(-ADVANTAGE_B[b] * ratio_C, -ADVANTAGE_B[b] * clipped_C)
            total += worse_C.sum() / total_tokens
        return total

    grads, metrics = gradient_of(tiny, batch, Loss(dual_clip=None))
    value, want = jax.value_and_grad(loss)(params)
    np.testing.assert_allclose(metrics["loss/policy"], value, rtol=1e-5)
    assert_close(grads, want, rtol=1e-4, atol=1e-6)


def test_the_first_update_of_a_step_needs_no_scoring(tiny, batch):
    """Its own log-probabilities are the old ones, and the batch has them for later epochs."""
    graphdef, params, _ = tiny
    gradient = jax.jit(make_gradient(graphdef, Loss(), **SETTINGS))
    _, _, logprob_MRT = gradient(params, batch)
    fresh = make_batch(old_logprob_BC=None)
    later = later_epoch(fresh, logprob_MRT)
    assert bool(fresh.on_policy) and not bool(later.on_policy) and not bool(batch.on_policy)
    assert later_epoch(batch, logprob_MRT) is batch
    on_policy, scored = gradient(params, fresh), gradient(params, later)
    assert_close(on_policy[:2], scored[:2], rtol=1e-6, atol=1e-8)
    assert (
        float(on_policy[1]["loss/old_distance"])
        == 0
        < float(gradient(params, batch)[1]["loss/old_distance"])
    )
    targets = np.asarray(batch.trained)
    assert float(on_policy[1]["drift/sampler_logprob"]) == pytest.approx(
        np.abs(np.asarray(logprob_MRT))[targets].mean(), rel=1e-5
    )  # the sampler's are all 0 here


def test_completions_that_are_left_out_change_nothing(tiny):
    """Of the loss and of its denominator, whatever their advantage."""
    kept_B = np.arange(B) % 3 != 0
    left_out = make_batch(trained_B=kept_B)
    assert left_out.completions == kept_B.sum()
    grads, metrics = gradient_of(tiny, left_out, Loss(kl_coef=0.1, aggregation="sequence_mean"))
    louder = dataclasses.replace(
        left_out, advantage=jnp.where(left_out.trained, left_out.advantage, jnp.nan)
    )
    again = gradient_of(tiny, louder, Loss(kl_coef=0.1, aggregation="sequence_mean"))
    assert_close(again, (grads, metrics), rtol=0, atol=0)
    tokens = int(rollout_and_stats()[0].length[kept_B].sum())
    assert left_out.trained_tokens == tokens == int(left_out.trained.sum())


@pytest.mark.parametrize(
    "axes",
    [
        {"data": 2, "fsdp": 2, "tensor": 2},
        {"data": 2, "context": 2, "tensor": 2},
        {"fsdp": 2, "context": 4},
    ],
    ids=str,
)
@pytest.mark.slow
def test_one_device_and_eight_give_the_same_update(tiny, axes):
    """Loss, gradients and updated parameters with rows, columns, heads and weights really split."""
    graphdef, params, _ = tiny
    loss, optimizer = Loss(kl_coef=0.1), make_optimizer(Optim(learning_rate=1e-3))

    def run(place_params):
        placed, rows = place_params(params), make_batch()
        grads, metrics, _ = jax.jit(make_gradient(graphdef, loss, **SETTINGS))(placed, rows)
        copy = jax.tree.map(jnp.copy, placed)
        update = make_update(graphdef, optimizer, loss, **SETTINGS)
        start = init_state(copy, optimizer)
        places = jax.tree.map(lambda x: x.sharding, start)
        state, update_metrics, _ = update(start, rows)
        # So that the second step runs what was compiled for the first.
        assert jax.tree.map(lambda x: x.sharding, state) == places
        return jax.device_get((grads, metrics, state.params, update_metrics))

    alone = run(lambda p: p)
    mesh = make_mesh(**axes)
    with jax.set_mesh(mesh):
        assert ("context" in make_batch().trained.sharding.spec) == ("context" in axes)
        spread = run(lambda p: jax.device_put(p, param_shardings(p, mesh)))
    assert_close(spread[0], alone[0], rtol=2e-4, atol=2e-6)
    assert_close(spread[1], alone[1], rtol=1e-5, atol=1e-6)
    # Adam divides by the root of the second moment: where a gradient is rounding noise the first
    # step is too, so parameters are compared at the size of a step.
    assert_close(spread[2], alone[2], atol=2e-5)
    assert_close(spread[3], alone[3], rtol=1e-4, atol=1e-6)


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
    still = dataclasses.replace(batch, advantage=jnp.zeros_like(batch.advantage))
    update = make_update(graphdef, optimizer, Loss(), **SETTINGS)
    state, metrics, _ = update(init_state(jax.tree.map(jnp.copy, params), optimizer), still)
    assert metrics["grad/norm"] == 0
    embed, norm = params["embed"].get_value(), params["final_norm"].get_value()
    assert_close(state.params["embed"].get_value(), embed * 0.95, rtol=1e-5)
    assert_close(state.params["final_norm"].get_value(), norm, rtol=0)


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


def test_mini_batches_are_whole_groups_in_order():
    rollout, old, _ = rollout_and_stats()
    packings = packed(rollout, mini_batches=2)
    old_logprobs = [None, np.asarray(old.logprob[B // 2 :])]
    first, second = train_batches(
        packings, rollout, ADVANTAGE_B, old_logprobs, None, Loss(), 0.0, jax.random.key(0)
    )
    for half, batch, packing in ((0, first, packings[0]), (1, second, packings[1])):
        rows = slice(half * B // 2, (half + 1) * B // 2)
        advantage_BC = packing.collect(np.asarray(batch.advantage), C)
        np.testing.assert_array_equal(advantage_BC[:, 0], ADVANTAGE_B[rows])
        assert batch.completions == B // 2 and batch.ref_logprob is None
        assert bool(batch.on_policy) == (half == 0)
    want = np.where(rollout.mask, old.logprob, 0)[B // 2 :]
    np.testing.assert_array_equal(packings[1].collect(np.asarray(second.old_logprob), C), want)


def test_learning_moves_probability_towards_the_rewarded(tiny):
    """Completions with positive advantage become likelier, the others less likely."""
    graphdef, params, _ = tiny
    optimizer = make_optimizer(Optim(learning_rate=1e-3, warmup_steps=0, weight_decay=0.0))
    signs_B = np.array([1.0, -1.0] * (B // 2), np.float32)
    rollout, _, _ = rollout_and_stats()
    (packing,) = packed(rollout)
    batch = put_pieces(
        train_batch(
            packing,
            signs_B,
            old_logprob_BC=None,
            sampler_logprob_BC=np.zeros((B, C), np.float32),
            ref_logprob_BC=None,
            trained_B=np.ones(B, bool),
        )
    )
    update = make_update(graphdef, optimizer, Loss(), **SETTINGS)
    before = scored(graphdef, params, rollout, SETTINGS["temperature"]).logprob
    start = init_state(jax.tree.map(jnp.copy, params), optimizer)
    state, metrics, logprob_MRT = update(start, batch)
    assert float(metrics["loss/clip_fraction"]) == 0
    seen_BC = packing.collect(np.asarray(logprob_MRT), C)
    np.testing.assert_allclose(seen_BC, before, rtol=1e-5, atol=1e-5)
    after = scored(graphdef, state.params, rollout, SETTINGS["temperature"]).logprob
    assert (np.sign((after - before).sum(axis=1)) == signs_B).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_changes_nothing(tiny, batch, bad):
    """One number of the batch is enough; the metrics show it, and the next update is as ever."""
    graphdef, params, _ = tiny
    optimizer = make_optimizer(Optim(learning_rate=0.1, warmup_steps=0), 1)
    update = make_update(graphdef, optimizer, Loss(kl_coef=0.1), **SETTINGS)

    def fresh():
        return init_state(jax.tree.map(jnp.copy, params), optimizer)

    advantage = np.array(batch.advantage)
    advantage[np.nonzero(np.asarray(batch.trained))[0][0]] = bad
    state, metrics, _ = update(fresh(), dataclasses.replace(batch, advantage=put_pieces(advantage)))
    assert not np.isfinite([float(metrics[name]) for name in ("loss/policy", "grad/norm")]).all()
    assert_close(state, fresh(), rtol=0, atol=0)
    after, metrics, _ = update(state, batch)
    wanted, *_ = update(fresh(), batch)
    assert np.isfinite(float(metrics["grad/norm"]))
    assert_close(after, wanted, rtol=0, atol=0)
    assert_not_equal(after, fresh())


def assert_not_equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert any((np.asarray(x) != np.asarray(y)).any() for x, y in pairs)
