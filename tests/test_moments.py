"""The optimiser's moments: which of them may be bfloat16, and their memory and checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlif_jax.config import Config, Optim
from rlif_jax.optimizer import init_state, make_optimizer, state_shapes
from rlif_jax.planning.ahead import local_bytes
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.sharding import make_mesh, param_shardings
from rlif_jax.step import make_stages

HALF = Optim(learning_rate=1e-3, warmup_steps=0, weight_decay=0.0, first_moment_dtype="bfloat16")
WHOLE = Optim(learning_rate=1e-3, warmup_steps=0, weight_decay=0.0)
WIDTH = 64


def moved(optimizer: optax.GradientTransformation, gradients) -> np.ndarray:
    """The updates [steps, WIDTH] of one parameter."""
    params = {"w": jnp.zeros(WIDTH)}

    def step(state, gradient):
        update, state = optimizer.update({"w": gradient}, state, params)
        return state, update["w"]

    gradients = jnp.asarray(gradients, jnp.float32)
    return np.asarray(jax.lax.scan(step, optimizer.init(params), gradients)[1])


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_a_bfloat16_first_moment_rounds_each_update_a_little(size):
    """By a few of bfloat16's steps of 2^-8, at any magnitude, and on average by none."""
    optim = {"clip_norm": float("inf")}
    gradients = np.random.default_rng(0).normal(0.5, 1.0, (200, WIDTH)) * size
    half = moved(make_optimizer(Optim(**{**vars(HALF), **optim})), gradients)
    whole = moved(make_optimizer(Optim(**{**vars(WHOLE), **optim})), gradients)
    difference = (half - whole) / np.abs(whole).mean()
    assert 1e-5 < np.abs(difference).max() < 0.05
    assert abs(difference.mean()) < 1e-3


def test_the_second_moment_follows_gradients_that_fade():
    """When gradients become a hundred times smaller, steps regain their size as in float32.

    A first moment that nears a constant gradient from below stops 2% short of it, for 0.1 of that
    rounds away. A second moment in bfloat16 would never fall: 0.999 of a number rounds back to it.
    """
    gradients = np.concatenate([np.full((100, WIDTH), 1e-2), np.full((6000, WIDTH), 1e-4)])
    half, whole = (moved(make_optimizer(optim), gradients) for optim in (HALF, WHOLE))
    np.testing.assert_allclose(half[[50, 1000, -1]], whole[[50, 1000, -1]], rtol=0.03)
    assert np.abs(half[-1]).min() > 10 * np.abs(half[200]).max()
    stalled = jnp.asarray(1e-4, jnp.bfloat16)
    assert (stalled.astype(jnp.float32) * 0.999).astype(jnp.bfloat16) == stalled


def spread(tiny, optim: Optim):
    graphdef, params, _ = tiny
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    optimizer = make_stages(Config(optim=optim), graphdef, pad_id=0).optimizer
    return mesh, optimizer, jax.device_put(params, param_shardings(params, mesh))


def test_a_device_holds_half_of_the_first_moment(tiny):
    mesh, optimizer, params = spread(tiny, HALF)
    with jax.set_mesh(mesh):
        state = init_state(params, optimizer)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert local_bytes(moments) == 1.5 * local_bytes(params)
    jax.tree.map(
        lambda x, shape: x.sharding == shape.sharding, state, state_shapes(params, optimizer)
    )
    assert {x.dtype for x in moments} == {jnp.dtype("bfloat16"), jnp.dtype("float32")}


@pytest.mark.slow
def test_a_checkpoint_resumes_as_if_nothing_had_happened(tiny, tmp_path):
    mesh, optimizer, params = spread(tiny, HALF)

    @jax.jit
    def step(state, i):
        gradients = jax.tree.map(lambda p: jnp.sin(100 * p + i), state.params)
        changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return state.replace(params=optax.apply_updates(state.params, changes), opt_state=opt_state)

    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    with jax.set_mesh(mesh):
        state = step(init_state(params, optimizer), 0)
        checkpoints.save(1, state, jax.random.key(0), {})
        restored, _, _ = checkpoints.restore(state_shapes(params, optimizer))
        whole, parts = step(state, 1), step(restored, 1)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert jax.tree.map(lambda x: x.dtype, whole) == jax.tree.map(lambda x: x.dtype, parts)
