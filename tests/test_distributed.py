"""Processes that compute together end together; several that agree are in test_two_processes."""

import subprocess
import sys

import numpy as np
import pytest
from support.two_processes import free_address

from rlif_jax import distributed
from rlif_jax.config import Processes
from rlif_jax.distributed import ending_together, join, least
from rlif_jax.errors import UserError


@pytest.mark.parametrize("count", [0, 1])
def test_one_process_is_the_first_and_agrees_with_itself(count):
    join(Processes(count=count))
    assert (distributed.process_index(), distributed.process_count()) == (0, 1)
    assert distributed.is_first()
    assert distributed.by_first(lambda: np.array([True, False])).tolist() == [True, False]
    assert least(0.1) == 0.1  # not rounded to float32
    assert distributed.gathered({"any": "value"}) == [{"any": "value"}]
    assert distributed.by_first(lambda: 3) == 3
    assert [distributed.any_of(flag) for flag in (True, False)] == [True, False]
    assert [distributed.all_of(flag) for flag in (True, False)] == [True, False]
    with pytest.raises(KeyError), ending_together():
        raise KeyError


def test_what_processes_share_out_comes_in_turns():
    assert distributed.in_turns([[0, 3], [1, 4], [2, 5]]) == list(range(6))
    with pytest.raises(ValueError, match="longer"):
        distributed.in_turns([[0], [1, 2]])


def test_processes_that_do_not_meet_are_told_how():
    asked = Processes(count=2, index=2, coordinator="localhost:1")
    with pytest.raises(UserError, match=r"the 2 processes did not meet.*--processes\.coordinator"):
        join(asked)


# The thread stands for the barrier at which JAX would wait for the other processes.
ENDING = """
import sys, threading
import jax
from rlif_jax.distributed import ending_together
threading.Thread(target=threading.Event().wait).start()
jax.distributed.initialize(sys.argv[1], 1, 0)
with ending_together():
    print("begun")
    {}
"""


@pytest.mark.parametrize(
    ("what", "status", "error"),
    [
        ("raise SystemExit(2)", 2, ""),
        ("sys.exit('a text')", 1, ""),
        ("raise KeyError('why')", 1, "KeyError: 'why'"),
    ],
)
def test_a_process_of_several_that_fails_is_gone_at_once(what, status, error):
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(what), free_address()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (status, "begun\n")
    assert error in done.stderr
    assert bool(error) == ("Traceback" in done.stderr)


def test_what_processes_have_of_their_own_is_refused_on_all_of_them(monkeypatch):
    """One host took an older commit of a model from its cache, as the Hub did not answer it."""
    mine = {"the model": "hf:a/b@1", "the problems": ("d", 3)}
    distributed.check_same(mine)
    others = [mine, mine, mine | {"the model": "hf:a/b@0"}]
    monkeypatch.setattr(distributed, "gathered", lambda value: others)
    said = r"process 2 has the model 'hf:a/b@0', and process 0 has 'hf:a/b@1': give all processes"
    with pytest.raises(UserError, match=said):
        distributed.check_same(mine)
