"""Damaged checkpoints: each is found, set aside, and the one before it is used."""

import json
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from rlif_jax.config import Optim
from rlif_jax.errors import UserError
from rlif_jax.optimizer import init_state, make_optimizer
from rlif_jax.run import manifest
from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
from rlif_jax.run.digest import digests

NEEDED = (
    "data/metadata",
    *(f"{item}/{part}" for item in ("params", "rest") for part in ("manifest.ocdbt", "d/")),
)
"""Files of which nothing may be lost, besides the largest one of each item: the numbers."""

PROGRAM = """
    import json, pathlib, shutil
    import jax
    from flax import nnx
    from rlif_jax.config import Optim
    from rlif_jax.optimizer import init_state, make_optimizer
    from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
    from rlif_jax.run.digest import digests
    from rlif_jax.weights.source import load_model

    home = pathlib.Path({home!r})
    model, _ = load_model({model!r})
    state = init_state(nnx.split(model)[1], make_optimizer(Optim()))
    moments = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape) if x.ndim else x,
        state.opt_state,
    )
    state = state.replace(opt_state=moments)
    data = {{"state": {{"next_index": 24}}}}
    whole = Checkpoints(home / "whole", keep=2, keep_best=1)
    for step in (5, 7):
        whole.save(step, state, jax.random.key(0), data, 0.25)
    whole.close()

    def flipped(path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)

    def cut(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def outcome(folder):
        checkpoints = Checkpoints(folder, keep=2, keep_best=1)
        try:
            restored, key, kept = checkpoints.restore(state)
        except DamagedCheckpoint as error:
            assert error.step == 7 and error.reason
            again = Checkpoints(folder, keep=2, keep_best=1)
            restored, _, _ = again.restore(state)
            assert digests(restored) == expected and again.steps() == [5]
            assert sorted(p.name for p in folder.iterdir()) == ["5", "damaged-7"]
            return str(error)
        same = digests(restored) == expected and (key == jax.random.key(0)).all() and kept == data
        return "restored" if same and checkpoints.latest() == 7 else "WRONG"

    expected = digests(state)
    for path in sorted((home / "whole" / "7").rglob("*")):
        if not path.is_file() or path.name == "commit_success.txt":
            continue
        for damage in (flipped, cut, pathlib.Path.unlink):
            folder = home / "damaged"
            shutil.copytree(home / "whole", folder)
            name = path.relative_to(home / "whole" / "7")
            damage(folder / "7" / name)
            try:
                said = outcome(folder)
            except Exception as error:
                said = f"{{type(error).__name__}} {{error}}"
            print(json.dumps([str(name), damage.__name__, said]))
            shutil.rmtree(folder)
"""


@pytest.mark.slow
def test_each_file_damaged_in_three_ways_is_found_or_not_needed(tmp_path, tiny_path):
    """In a process of its own: Orbax leaves the reads of a restore that failed to themselves."""
    program = textwrap.dedent(PROGRAM).format(home=str(tmp_path), model=str(tiny_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    whole = tmp_path / "whole/7"
    files = [p for item in ("params", "rest") for p in [(whole / item).rglob("*")]]
    largest = {max(paths, key=lambda p: p.stat().st_size * p.is_file()) for paths in files}
    numbers = {str(path.relative_to(whole)) for path in largest}
    assert len(cases) > 40 and len(numbers) == 2
    for name, damage, said in cases:
        found = said.startswith(f"checkpoint 7 in {tmp_path / 'damaged'} is damaged: ")
        assert found or said == "restored", (name, damage, said)
        if name in numbers or name == "data/metadata":
            assert found, (name, damage)
        if damage != "flipped" and name.startswith(NEEDED):
            assert found, (name, damage)
        if found:
            assert f"moved to {tmp_path / 'damaged' / 'damaged-7'}. The same command" in said
            assert said.endswith("resumes after step 5.")
        if name in numbers and damage == "flipped":
            assert "not as saved, by the digests" in said


@pytest.fixture
def checkpoints(tmp_path, tiny):
    state = init_state(tiny[1], make_optimizer(Optim()))
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (5, 7):
        checkpoints.save(step, state, jax.random.key(0), {"next_index": step})
    checkpoints.wait()
    yield state, checkpoints
    checkpoints.close()


def rewritten(step, change) -> None:
    """Write the JSON of a checkpoint again after `change`."""
    path = step / "data/metadata"
    kept = json.loads(path.read_text())
    change(kept)
    path.write_text(json.dumps(kept))


def test_numbers_that_are_not_those_that_were_saved_are_found(tmp_path, checkpoints):
    """The parameters of another step are as readable, and as wrong."""
    state, opened = checkpoints
    other = state.replace(params=jax.tree.map(lambda x: x.at[0].add(1), state.params))
    opened.save(9, other, jax.random.key(0), {"next_index": 9})
    opened.wait()
    (tmp_path / "7/params").rename(tmp_path / "own")
    (tmp_path / "9/params").rename(tmp_path / "7/params")
    with pytest.raises(DamagedCheckpoint, match=r"params\.embed.* not as saved, by the digests"):
        opened.restore(state, 7)
    assert opened.steps() == [5, 9]
    (tmp_path / "damaged-5").mkdir()  # a name that is taken
    rewritten(tmp_path / "5", lambda kept: kept.pop("digest"))
    with pytest.raises(DamagedCheckpoint, match=r"damaged-5-2\. The same command resumes after"):
        opened.restore(state, 5)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept["data"].update(next_index=8),
        lambda kept: kept["arrays"]["step"].__setitem__(0, "0" * 16),
        lambda kept: kept["arrays"].pop("params.embed"),
        lambda kept: kept.update(rrays=kept.pop("arrays")),
        lambda kept: kept.pop("digest"),
    ],
    ids=["place", "digest", "name", "key", "none"],
)
def test_a_record_that_was_changed_is_found(tmp_path, checkpoints, change):
    state, opened = checkpoints
    rewritten(tmp_path / "7", change)
    with pytest.raises(DamagedCheckpoint, match="the record of its content has another digest"):
        opened.restore(state)
    _, _, data = opened.restore(state)
    assert data == {"next_index": 5}


def test_one_that_another_process_has_moved_already_is_reported_the_same(tmp_path, checkpoints):
    state, opened = checkpoints
    rewritten(tmp_path / "7", lambda kept: kept.pop("digest"))
    others = Checkpoints(tmp_path, keep=3)
    with pytest.raises(DamagedCheckpoint, match="resumes after step 5"):
        others.restore(state)
    others.close()
    with pytest.raises(DamagedCheckpoint, match="resumes after step 5"):
        opened.restore(state, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["5", "damaged-7"]


def test_a_folder_of_another_run_is_left_as_it_is(tmp_path, checkpoints):
    state, _ = checkpoints
    rewritten(tmp_path / "7", lambda kept: kept.pop("digest"))
    others = Checkpoints(tmp_path, keep=1, read_only=True)
    with pytest.raises(DamagedCheckpoint, match="Choose another checkpoint of the run"):
        others.restore(state)
    assert others.steps() == [5, 7]
    others.close()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        MemoryError(),
        ValueError("RESOURCE_EXHAUSTED: out of memory"),
        ValueError("UNAVAILABLE: the bucket does not answer"),
    ],
    ids=str,
)
def test_what_may_pass_damages_nothing(tmp_path, checkpoints, monkeypatch, error):
    state, opened = checkpoints

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(opened._manager, "restore", fail)
    with pytest.raises(UserError, match="cannot be read now") as raised:
        opened.restore(state)
    assert not isinstance(raised.value, DamagedCheckpoint)
    assert opened.steps() == [5, 7]


def test_a_manifest_tells_other_numbers():
    tree = {"params": {"w": np.ones(3, np.float32)}}
    data, arrays = manifest.opened(manifest.written(tree, {"place": (1, 2)}))
    assert data == {"place": [1, 2]} and arrays is not None
    assert manifest.altered(arrays, tree) == manifest.misfits(arrays, tree) == []
    assert manifest.altered(arrays, {"params": {"w": np.zeros(3, np.float32)}}) == ["params.w"]
    assert digests(tree) == {"params.w": arrays["params.w"][0]}
