"""Checkpoints in a bucket: what comes back, what is unfinished, and what a refusal leaves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from google.api_core.exceptions import GoogleAPIError

from rlif_jax.config import Optim
from rlif_jax.errors import Outage, UserError
from rlif_jax.optimizer import init_state, make_optimizer
from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
from rlif_jax.run.digest import digests
from rlif_jax.storage.folder import bucket_errors, folder_at

FOLDER = "gs://runs/some/run/checkpoints"


@pytest.fixture
def state(tiny):
    state = init_state(tiny[1], make_optimizer(Optim()))
    filled = jax.tree.map(lambda x: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), state)
    return filled.replace(params=state.params)


def opened(**options) -> Checkpoints:
    return Checkpoints(folder_at(FOLDER), **({"keep": 2} | options))


def save(checkpoints: Checkpoints, state, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, state, jax.random.key(step), {"next": step})
    checkpoints.wait()


def bits(tree):
    return digests(jax.tree.map(np.asarray, tree))


def stored(bucket) -> set[str]:
    """The checkpoints of which there is an object."""
    return {name.split("/")[3] for name in bucket.files}


def test_all_comes_back_and_only_the_newest_are_kept(bucket, state):
    checkpoints = opened()
    assert checkpoints.latest() is None
    save(checkpoints, state, 1, 2, 3)
    checkpoints.close()
    assert stored(bucket) == {"2", "3"}
    restored, key, data = opened().restore(state)
    assert bits(restored) == bits(state)
    assert (key == jax.random.key(3)).all() and data == {"next": 3}


def test_an_unfinished_one_is_removed_and_its_step_saved_again(bucket, state):
    save(opened(), state, 1, 2)
    del bucket.files["some/run/checkpoints/2/commit_success.txt"]
    assert opened(read_only=True).steps() == [1]
    assert stored(bucket) == {"1", "2"}
    resumed = opened()
    assert resumed.steps() == [1]
    save(resumed, state, 2)
    assert opened().latest() == 2


def test_a_damaged_one_is_set_aside(bucket, state):
    save(opened(), state, 1, 2)
    (name,) = [n for n in bucket.files if re.search(r"/2/rest/d/\w+$", n)]
    bucket.files[name] = bucket.files[name][:-9]
    checkpoints = opened()
    with pytest.raises(DamagedCheckpoint, match=rf"to {FOLDER}/damaged-2\. .* after step 1\."):
        checkpoints.restore(state)
    assert stored(bucket) == {"1", "damaged-2"}
    assert checkpoints.latest() == 1
    assert bits(checkpoints.restore(state)[0]) == bits(state)


def test_a_refused_save_is_one_sentence_and_leaves_the_one_before(bucket, state):
    checkpoints = opened()
    save(checkpoints, state, 1)
    bucket.status = 403
    said = rf"checkpoint of step 2 could not be written to {FOLDER}: the bucket refuses access"
    with pytest.raises(UserError, match=rf"{said} .*Storage Object User.* Earlier ones are"):
        save(checkpoints, state, 2)
    bucket.status = None
    resumed = opened()
    assert resumed.steps() == [1]
    assert bits(resumed.restore(state)[0]) == bits(state)


def test_a_refused_restore_sets_nothing_aside(bucket, state):
    save(opened(), state, 1)
    checkpoints = opened()
    assert checkpoints.latest() == 1
    before, bucket.status = bucket.files.copy(), 403
    refused = r"cannot be read now: .*(Forbidden|PERMISSION_DENIED)"
    with pytest.raises(UserError, match=refused) as said:
        checkpoints.restore(state, 1)
    assert not isinstance(said.value, Outage)  # to start again would be for nothing
    assert bucket.files == before


def test_a_bucket_that_is_away_for_a_moment_is_asked_again(bucket, state, monkeypatch):
    """The command ends with a status after which launchers start it again."""
    save(opened(), state, 1)
    checkpoints = opened()
    assert checkpoints.latest() == 1

    def away(*_, **__):
        raise ValueError("UNAVAILABLE: the service does not answer")

    monkeypatch.setattr(checkpoints._manager, "restore", away)
    with pytest.raises(Outage, match=r"cannot be read now: UNAVAILABLE"):
        checkpoints.restore(state, 1)


def test_a_refused_look_is_not_an_empty_folder(bucket, state):
    save(opened(), state, 1)
    bucket.status = 403
    with pytest.raises(UserError, match="refuses access"), bucket_errors(FOLDER):
        opened().latest()


@pytest.mark.slow
@pytest.mark.parametrize("more", [0, 10**9], ids=["alone", "with all that follow"])
def test_whichever_request_is_refused_nothing_is_lost(bucket, state, more):
    """Orbax takes some that are refused for a checkpoint that is not there."""
    save(opened(), state, 1, 2)
    before, failed = bucket.files.copy(), set()
    for first in range(0, 160, 3):
        bucket.asked, bucket.refused = 0, range(first, first + 1 + more)
        try:
            restored, _, _ = opened().restore(state)
            assert bits(restored) == bits(state)
        except (OSError, GoogleAPIError, UserError):
            failed.add(first)
        assert bucket.files == before
    assert len(failed) > 5
