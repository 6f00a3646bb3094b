"""Runs that start from another run's checkpoint, with a fresh optimiser or the kept one."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_runs import config, numbers, refused

from rlif_jax.config import Config, Loss, Optim
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.optimizer import init_state, make_optimizer, state_shapes
from rlif_jax.rewards import known_rewards
from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
from rlif_jax.run.digest import digests
from rlif_jax.run.start import initial_state, start_point
from rlif_jax.sharding import make_mesh, param_shardings
from rlif_jax.train import main

OPTIMIZER = make_optimizer(Optim())


def configured(run, **changes) -> Config:
    return Config(init_from=str(run), loss=Loss(entropy_coef=0.25), **changes)


@pytest.fixture(scope="module")
def states(tiny):
    """A trained state by its step, all of whose numbers tell the step."""
    shapes = state_shapes(tiny[1], OPTIMIZER)

    def numbers(step):
        return jax.tree.map(
            lambda x: jnp.asarray(np.arange(x.size).reshape(x.shape) + step, x.dtype), shapes
        )

    return {step: numbers(step) for step in (5, 7)}


@pytest.fixture(scope="module")
def saved_run(states, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "teacher@2"
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    for step, state in states.items():
        checkpoints.save(step, state, jax.random.key(step), {"next_index": step})
    checkpoints.close()
    return folder


def started(cfg: Config, params):
    return initial_state(cfg, start_point(cfg), params, OPTIMIZER)


@pytest.mark.parametrize(("name", "step"), [("{}", 7), ("{}@7", 7), ("{}@5", 5)])
def test_a_fresh_optimiser_and_the_parameters_of_the_step(saved_run, states, tiny, name, step):
    cfg = configured(name.format(saved_run))
    assert start_point(cfg).source == f"{saved_run}@{step}"
    state = started(cfg, tiny[1])
    assert digests(state.params) == digests(states[step].params)
    blank = init_state(tiny[1], OPTIMIZER, 0.25)
    assert digests(state.replace(params=None)) == digests(blank.replace(params=None))


def test_a_kept_optimiser_has_its_moments_and_counts_its_updates(saved_run, states, tiny):
    state = started(configured(f"{saved_run}@5", init_optimizer="kept"), tiny[1])
    assert digests(state) == digests(states[5].replace(step=jnp.int32(0)))
    assert jax.tree.structure(state) == jax.tree.structure(states[5])


@pytest.mark.parametrize("optimizer", ["fresh", "kept"])
def test_shapes_on_another_mesh_are_filled(saved_run, states, tiny, optimizer):
    mesh = make_mesh(fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(tiny[1], param_shardings(tiny[1], mesh))
        shapes = state_shapes(placed, OPTIMIZER).params
        state = started(configured(saved_run, init_optimizer=optimizer), shapes)
        assert digests(state.params) == digests(states[7].params)
    jax.tree.map(lambda x, y: x.sharding == y.sharding or pytest.fail(), state.params, placed)


def test_without_init_from_the_parameters_are_those_given(tiny):
    cfg = Config(loss=Loss(entropy_coef=0.25))
    assert not start_point(cfg).source
    assert digests(started(cfg, tiny[1])) == digests(init_state(tiny[1], OPTIMIZER, 0.25))


def test_a_run_that_is_not_there_is_named(saved_run, tmp_path):
    (tmp_path / "empty/checkpoints").mkdir(parents=True)
    for name, what in (
        (tmp_path / "absent", "is not a run folder: .*absent/checkpoints is no folder"),
        (tmp_path / "empty", "empty/checkpoints has none yet"),
        (f"{saved_run}@6", r"has those of 5, 7\. Give RUN@STEP with one of them"),
    ):
        with pytest.raises(UserError, match=what) as raised:
            start_point(configured(name))
        assert repr(str(name)) in str(raised.value)


def test_another_model_is_refused_and_another_optimiser_where_it_is_kept(saved_run, tiny):
    other = jax.tree.map(lambda x: jnp.zeros((3, *x.shape), x.dtype), tiny[1])
    cfg = configured(saved_run)
    with pytest.raises(UserError, match=r"params\.embed has shape .* give a run of the") as raised:
        started(cfg, other)
    assert str(saved_run) in str(raised.value) and cfg.model.source in str(raised.value)
    halves = make_optimizer(Optim(first_moment_dtype="bfloat16"))
    initial_state(cfg, start_point(cfg), tiny[1], halves)
    cfg = configured(saved_run, init_optimizer="kept")
    with pytest.raises(UserError, match="is float32, not bfloat16"):
        initial_state(cfg, start_point(cfg), tiny[1], halves)


def test_adapters_are_those_of_the_run_beside_the_same_frozen_weights(saved_run, tmp_path, tiny):
    from rlif_jax.model.lora import Adapter

    def with_adapters(value):
        adapter = nnx.State({"layers": {"q_lora_a": Adapter(jnp.full(4, value))}})
        return nnx.merge_state(tiny[1], adapter)

    run = tmp_path / "adapters"
    state = init_state(with_adapters(2.0), OPTIMIZER)
    checkpoints = Checkpoints(run / "checkpoints", keep=1, adapters_only=True)
    checkpoints.save(3, state, jax.random.key(0), {})
    checkpoints.close()
    restored = started(configured(run), with_adapters(0.0))
    assert digests(restored.params) == digests(state.params)
    changed = jax.tree.map(lambda x: x + 1, with_adapters(0.0))
    with pytest.raises(UserError, match=r"params\.embed is frozen and has other values"):
        started(configured(run), changed)
    with pytest.raises(UserError, match=r"it lacks params\.layers\.q_lora_a"):
        started(configured(saved_run), with_adapters(0.0))


def test_a_damaged_checkpoint_of_another_run_is_named_and_left_there(saved_run, tmp_path, tiny):
    run = tmp_path / "copy"
    shutil.copytree(saved_run, run)
    path = run / "checkpoints/7/data/metadata"
    path.write_text(path.read_text().replace('"next_index": 7', '"next_index": 8'))
    with pytest.raises(UserError, match=r"is damaged: .* Choose another checkpoint") as raised:
        started(configured(run), tiny[1])
    assert not isinstance(raised.value, DamagedCheckpoint)  # which would be tried again
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["5", "7"]


def test_damage_that_shows_at_once_is_named_as_well(saved_run, tmp_path):
    """As a DamagedCheckpoint it would start the run anew without end: nothing is moved."""
    run = tmp_path / "copy"
    shutil.copytree(saved_run, run)
    (run / "checkpoints/7/metrics/metrics").write_text("")
    with pytest.raises(UserError, match=r"copy@5' cannot .* is damaged: its metrics") as raised:
        start_point(configured(f"{run}@5"))
    assert not isinstance(raised.value, DamagedCheckpoint)


def test_an_optimiser_is_kept_from_a_run_only():
    with pytest.raises(UserError, match="init_optimizer=kept is read only with init_from"):
        validate(Config(init_optimizer="kept"), known_rewards())


@pytest.mark.slow
def test_a_run_that_started_from_another_resumes_from_its_own(flags, tmp_path, capsys):
    arguments = [config("prob_disparity"), *flags, "--eval.every=0", "--optim.learning-rate=0.01"]
    teacher, whole, parts = (tmp_path / name for name in ("teacher", "whole", "parts"))
    main([*arguments, "--steps=2", "--checkpoint.every=1", f"--run-dir={teacher}"])
    more = [*arguments, f"--init-from={teacher}@1", "--init-optimizer=kept", "--seed=5"]
    main([*more, "--steps=2", f"--run-dir={whole}"])
    main([*more, "--steps=1", f"--run-dir={parts}"])
    assert f"starting from {teacher}@1" in capsys.readouterr().out
    shutil.rmtree(teacher)
    main([*more, "--steps=2", f"--run-dir={parts}"])
    assert "starting from" not in capsys.readouterr().out
    assert numbers(parts) == numbers(whole)
    assert "is not a run folder" in refused([*more, f"--run-dir={tmp_path / 'new'}"], capsys)
