"""Checkpoints: everything comes back, on any mesh, and a failed save leaves the earlier ones."""

import gc
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlif_jax.config import Optim
from rlif_jax.errors import UserError
from rlif_jax.optimizer import init_state, make_optimizer
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.sharding import make_mesh, param_shardings

DATA = {"next_index": 24}


@pytest.fixture
def state(tiny):
    optimizer = make_optimizer(Optim())
    state = init_state(tiny[1], optimizer)
    filled = [
        jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) for x in jax.tree.leaves(state.opt_state)
    ]
    opt_state = jax.tree.unflatten(jax.tree.structure(state.opt_state), filled)
    return state.replace(step=jnp.int32(7), opt_state=opt_state)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_all_comes_back(tmp_path, tiny, state):
    key = jax.random.key(3)
    saving = Checkpoints(tmp_path / "c", keep=2)
    assert saving.latest() is None
    assert not (tmp_path / "c").exists()
    saving.save(7, state, key, DATA)
    saving.close()
    opened = Checkpoints(tmp_path / "c", keep=2)
    assert opened.latest() == 7
    blank = init_state(tiny[1], make_optimizer(Optim()))
    restored, restored_key, data = opened.restore(blank)
    equal(jax.device_get(restored), jax.device_get(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert (restored_key == key).all()
    assert data == DATA


def test_only_the_newest_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state, jax.random.key(0), DATA)
    assert checkpoints.latest() == 3
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["2", "3"]


def test_a_state_saved_on_one_device_is_restored_onto_a_mesh(tmp_path, tiny, state):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(7, state, jax.random.key(0), DATA)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    placed = jax.device_put(tiny[1], param_shardings(tiny[1], mesh))
    with jax.set_mesh(mesh):
        restored, _, _ = checkpoints.restore(init_state(placed, make_optimizer(Optim())))
    equal(jax.device_get(restored.params), jax.device_get(state.params))
    q = restored.params["layers"]["q"].get_value()
    assert q.sharding == placed["layers"]["q"].get_value().sharding


def test_a_full_disk_is_an_error_that_keeps_the_earlier_checkpoint(tmp_path, tiny_path):
    """With a limit on file sizes in place of a small disk, in a process of its own."""
    program = textwrap.dedent(
        f"""
        import resource, signal, sys
        import jax
        from flax import nnx
        from rlif_jax.run.checkpoint import Checkpoints
        from rlif_jax.config import Optim
        from rlif_jax.errors import UserError
        from rlif_jax.optimizer import init_state, make_optimizer
        from rlif_jax.weights.source import load_model

        model, _ = load_model({str(tiny_path)!r})
        state = init_state(nnx.split(model)[1], make_optimizer(Optim()))
        checkpoints = Checkpoints({str(tmp_path)!r}, keep=3)
        checkpoints.save(1, state, jax.random.key(0), {{}})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            checkpoints.save(2, state, jax.random.key(0), {{}})
        except UserError as error:
            print(error)
            sys.exit(2)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "checkpoint of step 2 could not be written" in done.stdout
    assert str(tmp_path) in done.stdout
    assert Checkpoints(tmp_path, keep=3).latest() == 1


@pytest.fixture
def orbax_leftovers():
    """What Orbax's abandoned reads have to say is said now: in another test's `ast.parse` it is an
    error of the interpreter's (CPython issue 106905), which formats tracebacks with the same."""
    yield
    gc.collect()


@pytest.mark.usefixtures("orbax_leftovers")
def test_another_shape_is_refused(tmp_path, tiny, state):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(7, state, jax.random.key(0), DATA)
    other = jax.tree.map(lambda x: jnp.zeros((3, *x.shape), x.dtype), state)
    with pytest.raises(UserError, match="does not fit"):
        checkpoints.restore(other)


def test_a_damaged_checkpoint_is_refused(tmp_path, tiny_path):
    """Each file of the parameters in turn cut: an error in words, or all of it is there.

    In a process of its own: Orbax leaves the reads of a restore that failed to themselves.
    """
    program = textwrap.dedent(
        f"""
        import pathlib, shutil
        import jax
        import numpy as np
        from flax import nnx
        from rlif_jax.run.checkpoint import Checkpoints
        from rlif_jax.config import Optim
        from rlif_jax.errors import UserError
        from rlif_jax.optimizer import init_state, make_optimizer
        from rlif_jax.weights.source import load_model

        home = pathlib.Path({str(tmp_path)!r})
        model, _ = load_model({str(tiny_path)!r})
        state = init_state(nnx.split(model)[1], make_optimizer(Optim()))
        Checkpoints(home / "whole", keep=1).save(7, state, jax.random.key(0), {{}})
        parts = sorted((home / "whole" / "7" / "params").rglob("*"))
        for i, path in enumerate(p for p in parts if p.is_file() and p.stat().st_size > 200):
            shutil.copytree(home / "whole", home / str(i))
            damaged = home / str(i) / path.relative_to(home / "whole")
            damaged.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            try:
                restored, _, _ = Checkpoints(home / str(i), keep=1).restore(state)
            except UserError as error:
                print("refused:", error)
                continue
            jax.tree.map(np.testing.assert_array_equal, restored, state)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    refusals = [line for line in done.stdout.splitlines() if line.startswith("refused:")]
    assert refusals
    for line in refusals:
        assert "checkpoint 7 in " in line and "--run-dir" in line
