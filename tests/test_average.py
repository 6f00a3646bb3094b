"""The average of the trained parameters: by hand, on devices, in checkpoints, as a KL anchor."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from support.replays import SEED, arguments
from support.small_batch import SETTINGS, make_batch
from support.small_runs import metrics, numbers
from support.tiny_gguf import TINY

from rlif_jax import replay, step, train
from rlif_jax.config import Loss, Optim
from rlif_jax.errors import UserError
from rlif_jax.grpo import make_update
from rlif_jax.model.config import INPUT_AXES, Lora
from rlif_jax.model.decoder import Decoder
from rlif_jax.model.lora import trained
from rlif_jax.optimizer import average_of, init_state, make_optimizer, state_shapes
from rlif_jax.planning.ahead import local_bytes
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.scoring import Score
from rlif_jax.sharding import make_mesh, param_shardings
from rlif_jax.weights.parameters import named

HALVING = Optim(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, average_decay=0.5)


def averages(params, count, optim=HALVING, updates_per_step=1):
    """The average by name before and after each of `count` updates, all of zero gradients.

    Weight decay alone moves parameters then, by 0.95 in an update.
    """
    optimizer = make_optimizer(optim, updates_per_step)
    state = init_state(params, optimizer)
    zeros = jax.tree.map(jnp.zeros_like, trained(params))

    @jax.jit
    def updated(moving, opt_state):
        updates, opt_state = optimizer.update(zeros, opt_state, moving)
        return optax.apply_updates(moving, updates), opt_state

    moving = trained(params)
    for number in range(count + 1):
        yield {name: np.asarray(x) for name, x in named(average_of(state)).items()}
        if number < count:
            moving, opt_state = updated(moving, state.opt_state)
            state = dataclasses.replace(state, opt_state=opt_state)


def begun(graphdef, params, optim=HALVING):
    """The update of a run, and the state before the first one."""
    optimizer = make_optimizer(optim)
    update = make_update(graphdef, optimizer, Loss(), **SETTINGS)
    return update, init_state(jax.tree.map(jnp.copy, params), optimizer)


# 1, 0.95, 0.9025 and 0.857375 of the start; each average half itself, half the parameters
BY_HAND = (1.0, 0.975, 0.93875, 0.8980625)


def test_three_steps_by_hand(tiny):
    before = named(tiny[1])
    for share, found in zip(BY_HAND, averages(tiny[1], 3), strict=True):
        assert found.keys() == before.keys()
        for name, value in before.items():
            if "norm" in name:  # it does not decay, and stays as it is, bit for bit
                np.testing.assert_array_equal(found[name], value)
            else:
                np.testing.assert_allclose(found[name], share * value, rtol=1e-6)


def test_of_adapters_alone_by_hand():
    lora = Lora(rank=2, alpha=4.0, targets=tuple(INPUT_AXES))
    model = Decoder.init(
        dataclasses.replace(TINY, vocab_size=256, lora=lora), jax.random.key(1), scale=0.3
    )
    _, params = nnx.split(model)
    adapters = named(trained(params))
    for share, found in zip(BY_HAND, averages(params, 3), strict=True):
        assert found.keys() == adapters.keys()
        for name, value in adapters.items():
            np.testing.assert_allclose(found[name], share * value, rtol=1e-6)


def test_two_updates_of_a_step_count_as_one(tiny):
    """A quarter of the start is left after a step: each of its updates leaves a half."""
    quarter = dataclasses.replace(HALVING, average_decay=0.25)
    *_, found = averages(tiny[1], 2, optim=quarter, updates_per_step=2)
    embed = named(tiny[1])["embed"]
    share = 0.25 * 1 + 0.25 * 0.95 + 0.5 * 0.9025
    np.testing.assert_allclose(found["embed"], share * embed, rtol=1e-6)


def test_a_batch_that_is_not_finite_leaves_it(tiny):
    update, state = begun(*tiny[:2])
    before = jax.tree.map(np.asarray, average_of(state))
    batch = make_batch()
    bad = dataclasses.replace(batch, advantage=jnp.full_like(batch.advantage, jnp.nan))
    state, _, _ = update(state, bad)
    jax.tree.map(np.testing.assert_array_equal, average_of(state), before)


def test_without_one_the_remedy_is_said(tiny):
    state = init_state(tiny[1], make_optimizer(Optim()))
    with pytest.raises(UserError, match=r"set optim\.average_decay"):
        average_of(state)


def same_shardings(tree, other) -> None:
    jax.tree.map(lambda x, y: x.sharding == y.sharding or pytest.fail(), tree, other)


def spread(tiny):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    return mesh, jax.device_put(tiny[1], param_shardings(tiny[1], mesh))


def buffers(tree) -> set[int]:
    leaves = jax.tree.leaves(tree)
    return {s.data.unsafe_buffer_pointer() for x in leaves for s in x.addressable_shards}


def test_it_is_spread_over_devices_as_its_parameters_are(tiny):
    mesh, params = spread(tiny)
    optimizer = make_optimizer(HALVING)
    with jax.set_mesh(mesh):
        state = init_state(params, optimizer)
    same_shardings(average_of(state), params)
    same_shardings(state_shapes(params, optimizer), state)
    jax.tree.map(np.testing.assert_array_equal, average_of(state), params)
    assert not buffers(average_of(state)) & buffers(params)  # the update uses both up
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    assert local_bytes(average_of(state)) == local_bytes(params) < whole / 3.5


@pytest.mark.slow
def test_updates_on_eight_devices_and_a_checkpoint_between_them(tiny, tmp_path):
    """It keeps its parameters' shardings, and comes back bit for bit."""
    mesh, params = spread(tiny)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    with jax.set_mesh(mesh):
        update, state = begun(tiny[0], params)
        for _ in range(2):
            state, _, _ = update(state, make_batch())
            same_shardings(average_of(state), state.params)
        assert update._cache_size() == 1
        checkpoints.save(2, state, jax.random.key(0), {})
        restored, _, _ = checkpoints.restore(state_shapes(params, make_optimizer(HALVING)))
        same_shardings(restored, state)
        jax.tree.map(np.testing.assert_array_equal, average_of(restored), average_of(state))
        after, again = (update(one, make_batch())[0] for one in (state, restored))
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, after, again)


# --- runs: the anchor of the KL term, and the teacher that samples

MORE = (
    *("--loss.kl-coef=0.5", "--loss.kl-anchor=average", "--optim.average-decay=0.5"),
    *("--reward.terms", "probability_disparity", "1.0", "teacher_vote", "1.0"),
    *("--reward.stats-from=scorer", "--model.dtype=float32"),
)


def copied(params):
    return jax.tree.map(lambda x: np.array(x), params)


@dataclasses.dataclass
class Seen:
    """What a run has used: per step the parameters before it, per anchor and draw what it read."""

    before: list = dataclasses.field(default_factory=list)
    anchors: list = dataclasses.field(default_factory=list)
    policies: list = dataclasses.field(default_factory=list)
    draws: list = dataclasses.field(default_factory=list)


@pytest.fixture(scope="module")
def watched(flags, tmp_path_factory):
    """A run of three steps with an anchor and a teacher, and what it has used."""
    folder, seen = tmp_path_factory.mktemp("watched") / "run", Seen()
    real_step, real_sample = train.train_step, step.make_sample
    real_reference, real_certainty = Score.reference, Score.certainty

    def train_step(cfg, stages, state, *args):
        seen.before.append(copied(state.params))
        return real_step(cfg, stages, state, *args)

    def make_sample(*args, **settings):
        sample = real_sample(*args, **settings)

        def watched(params, prompts, key, rows_finished):
            rollout, usage = sample(params, prompts, key, rows_finished)
            embed = np.array(params["embed"].get_value())
            seen.draws.append((embed, jax.random.key_data(key).tolist(), rollout))
            return rollout, usage

        return watched

    def reference(self, params, *args):
        stats = real_reference(self, params, *args)
        seen.anchors.append((copied(params), stats))
        return stats

    def certainty(self, *args, **settings):
        policy, stats = real_certainty(self, *args, **settings)
        seen.policies.append(policy)
        return policy, stats

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_step", train_step)
        patch.setattr(step, "make_sample", make_sample)
        patch.setattr(Score, "reference", reference)
        patch.setattr(Score, "certainty", certainty)
        train.main(arguments(flags, folder, *MORE, name="prob_disparity"))
    return folder, seen


def averaged(before):
    """The averages before each step, from the parameters before each step."""
    average = [before[0]]
    for params in before[1:]:
        average.append(jax.tree.map(lambda a, x: 0.5 * a + 0.5 * x, average[-1], params))
    return average


def test_the_anchor_is_the_average_before_the_step(watched, tiny):
    folder, seen = watched
    for (params, _), by_hand in zip(seen.anchors, averaged(seen.before), strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), params, by_hand)
    # Of the first step it is the policy itself, bit for bit, and of later ones it is not.
    for number, ((_, stats), policy) in enumerate(zip(seen.anchors, seen.policies, strict=True)):
        distance = np.abs(stats.logprob - policy.logprob).max()
        assert distance == 0 if number == 0 else distance > 0.01
    kl = [row["loss/kl"] for row in metrics(folder)]
    assert kl[0] == 0 and min(kl[1:]) > 1e-4


def test_the_teacher_draws_first_with_the_average_and_a_key_of_its_own(watched):
    folder, seen = watched
    assert len(seen.draws) == 2 * len(seen.before)
    for number, (params, average) in enumerate(
        zip(seen.before, averaged(seen.before), strict=True), 1
    ):
        (taught, teacher_key, taught_rollout), (own, own_key, rollout) = seen.draws[
            2 * number - 2 : 2 * number
        ]
        step_key = jax.random.fold_in(jax.random.key(SEED), number)
        assert teacher_key == jax.random.key_data(jax.random.fold_in(step_key, 2**31 + 2)).tolist()
        assert own_key == jax.random.key_data(jax.random.split(step_key)[0]).tolist()
        np.testing.assert_allclose(taught, average["embed"].get_value(), atol=1e-6)
        np.testing.assert_array_equal(own, params["embed"].get_value())
        np.testing.assert_array_equal(taught_rollout.prompts.tokens, rollout.prompts.tokens)
        assert not np.array_equal(taught_rollout.tokens, rollout.tokens)
        records = (folder / f"rollouts/step_{number:06d}.jsonl").read_text().splitlines()
        assert len(records) == len(rollout.tokens)  # those of the teacher are not recorded
    first = metrics(folder)[0]
    assert first["exec/teacher_label_accuracy"] == first["reward/teacher_vote"] == 0


@pytest.mark.slow
def test_a_resumed_run_and_a_replay_repeat_it(watched, flags, tmp_path):
    folder, _ = watched
    again = arguments(flags, tmp_path / "run", *MORE, name="prob_disparity")
    train.main([*again, "--steps=2"])
    train.main([*again, "--steps=3"])
    assert numbers(tmp_path / "run") == numbers(folder)
    assert replay.replay(folder, 3) is None
    assert replay.replay(folder, 1, 2, start=0) is None
