"""Checkpoints: everything comes back, on any mesh, and a failed save leaves the earlier ones."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from rlif_jax.config import Optim
from rlif_jax.errors import UserError
from rlif_jax.optimizer import init_state, make_optimizer, state_shapes
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.digest import digests
from rlif_jax.sharding import make_mesh, param_shardings
from rlif_jax.weights.parameters import named

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


def bits(tree):
    return digests(jax.tree.map(np.asarray, tree))


def saved(folder) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


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
    assert bits(restored) == bits(state)
    equal(jax.device_get(restored), jax.device_get(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert (restored_key == key).all()
    assert data == DATA


@pytest.mark.parametrize("sizes", [{}, {"data": 2, "fsdp": 2}], ids=["one device", "mesh"])
def test_what_is_saved_is_the_state_of_that_moment(tmp_path, sizes):
    """The trainer donates its state right after: memory that a save still reads is not reused."""
    mesh = make_mesh(**sizes)
    here = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    optimizer = make_optimizer(Optim())
    w = jax.device_put(np.arange(1 << 22, dtype=np.float32), here)
    params = nnx.State({"w": nnx.Param(w)})
    state, data = init_state(params, optimizer), {"next": [1]}
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: -x - 1, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, keep=9)
    expected = {}
    for step in range(1, 4):
        expected[step] = bits(state)
        checkpoints.save(step, state, jax.random.key(step), data)
        data["next"][0] += 1
        for _ in range(5):
            state = overwrite(state)
        jax.block_until_ready(state)
    for step, digest in expected.items():
        restored, key, kept = checkpoints.restore(state, step)
        assert bits(restored) == digest
        assert (key == jax.random.key(step)).all() and kept == {"next": [step]}
    checkpoints.close()


def test_only_the_newest_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state, jax.random.key(0), DATA)
    assert checkpoints.latest() == 3
    assert saved(tmp_path) == checkpoints.steps() == [2, 3]


def test_multiples_and_the_best_are_kept_as_well_also_by_a_run_that_resumes(tmp_path, state):
    measured = {1: None, 2: 0.9, 3: 0.95, 4: 0.2, 5: None, 6: 0.95, 7: 0.1, 8: None, 9: 0.3}
    kept = {6: [4, 5, 6], 9: [4, 6, 8, 9]}  # of two that are equally good, the later
    for steps in (range(1, 7), range(7, 10)):
        checkpoints = Checkpoints(tmp_path, keep=2, keep_every=4, keep_best=1)
        for step in steps:
            checkpoints.save(step, state, jax.random.key(0), DATA, measured[step])
        checkpoints.close()
        assert saved(tmp_path) == kept[steps[-1]]


def test_a_state_saved_on_a_mesh_is_restored_onto_another(tmp_path, tiny):
    optimizer = make_optimizer(Optim())
    checkpoints = Checkpoints(tmp_path, keep=1)

    def shapes(**sizes):
        mesh = make_mesh(**sizes)
        return mesh, state_shapes(
            jax.device_put(tiny[1], param_shardings(tiny[1], mesh)), optimizer
        )

    def numbers(x):
        values = np.arange(x.size, dtype=x.dtype).reshape(x.shape)
        return jax.device_put(values, x.sharding)

    mesh, wanted = shapes(data=2, fsdp=4)
    with jax.set_mesh(mesh):
        state = jax.tree.map(numbers, wanted)
        expected = digests(state)
        checkpoints.save(7, state, jax.random.key(0), DATA)
    for sizes in ({"data": 2, "tensor": 2}, {}):
        mesh, wanted = shapes(**sizes)
        with jax.set_mesh(mesh):
            restored, _, _ = checkpoints.restore(wanted)
            assert digests(restored) == expected
        jax.tree.map(lambda x, y: x.sharding == y.sharding or pytest.fail(), restored, wanted)
    restored, _, _ = checkpoints.restore(state_shapes(tiny[1], optimizer))  # without a mesh
    assert digests(restored) == expected
    checkpoints.close()


def test_a_checkpoint_of_an_older_version_is_restored(tmp_path, state):
    """Without digests, metrics and a key of NumPy's, as it was written then."""
    parts = jax.tree_util.tree_leaves_with_path(state.opt_state)
    moments = {f"{i:04d}{jax.tree_util.keystr(p)}": x for i, (p, x) in enumerate(parts)}
    key = jax.random.key(3)
    rest = {"step": state.step, "opt_state": moments, "entropy_coef": state.entropy_coef}
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    args = ocp.args.Composite(
        params=ocp.args.StandardSave(named(state.params)),
        rest=ocp.args.StandardSave(rest | {"key": jax.random.key_data(key)}),
        data=ocp.args.JsonSave(DATA),
    )
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(7, args=args)
    checkpoints = Checkpoints(tmp_path, keep=2, keep_best=1)
    restored, restored_key, data = checkpoints.restore(state)
    assert bits(restored) == bits(state)
    assert (restored_key == key).all() and data == DATA
    checkpoints.save(8, state, key, DATA, 0.5)
    assert checkpoints.steps() == [7, 8]
    other = jax.tree.map(lambda x: jnp.zeros((3, *x.shape), x.dtype), state)
    with pytest.raises(UserError, match=r"7 in .* does not fit this run or is damaged"):
        checkpoints.restore(other, 7)
    assert checkpoints.steps() == [7, 8]
    checkpoints.close()


def test_a_full_disk_is_an_error_that_keeps_the_earlier_checkpoint(tmp_path, tiny_path, state):
    """With a limit on file sizes in place of a small disk, in a process of its own.

    A write that fails in the background is reported by the next save, or by close.
    """
    program = textwrap.dedent(
        f"""
        import resource, signal
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
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def attempt(what, work, *args):
            try:
                work(*args)
                print(what, "done")
            except UserError as error:
                print(what, error)

        def save(step):
            attempt(f"save {{step}}:", checkpoints.save, step, state, jax.random.key(0), {{}})

        save(1)
        checkpoints.wait()
        limit(4096)
        save(2)
        save(3)
        limit(resource.RLIM_INFINITY)
        save(4)
        checkpoints.wait()
        limit(4096)
        save(5)
        attempt("wait:", checkpoints.wait)
        save(6)
        attempt("close:", checkpoints.close)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("save 1", "save 2", "save 3", "save 4", "save 5", "wait", "save 6", "close")
    ]
    for i, step in ((2, 2), (5, 5), (7, 6)):
        assert f"checkpoint of step {step} could not be written to {tmp_path}" in lines[i]
        assert "resumes from the newest checkpoint" in lines[i]
    assert [line for i, line in enumerate(lines) if i not in (2, 5, 7)] == [
        f"save {step}: done" for step in (1, 2, 4, 5, 6)
    ]
    assert "ERROR:absl" not in done.stderr
    checkpoints = Checkpoints(tmp_path, keep=3)
    assert checkpoints.steps() == [1, 4]
    checkpoints.save(7, state, jax.random.key(0), DATA)  # what the failed ones left is gone by then
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "4", "7"]


def test_another_model_or_optimiser_is_refused_and_left_alone(tmp_path, tiny, state):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(7, state, jax.random.key(0), DATA)
    other = jax.tree.map(lambda x: jnp.zeros((3, *x.shape), x.dtype), state)
    with pytest.raises(UserError, match=r"does not fit this run: .* has shape .* Another model"):
        checkpoints.restore(other)
    halves = make_optimizer(Optim(first_moment_dtype="bfloat16"))
    with pytest.raises(UserError, match="is float32, not bfloat16"):
        checkpoints.restore(state_shapes(tiny[1], halves))
    assert saved(tmp_path) == [7]
    checkpoints.close()
