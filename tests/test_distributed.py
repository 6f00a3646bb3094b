"""Processes that compute together end together; several that agree are in test_two_processes."""

import subprocess
import sys

import numpy as np
import pytest

from rlif_jax.distributed import ending_together, from_first, join, least


def test_one_process_is_the_first_and_agrees_with_itself():
    assert join(1, 0)
    assert from_first(np.array([True, False])).tolist() == [True, False]
    assert least(0.1) == 0.1  # not rounded to float32
    with pytest.raises(KeyError), ending_together(1):
        raise KeyError


# The thread stands for the barrier at which JAX would wait for the other processes.
ENDING = """
import sys, threading
from rlif_jax.distributed import ending_together
threading.Thread(target=threading.Event().wait).start()
with ending_together(2):
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
        [sys.executable, "-c", ENDING.format(what)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (status, "begun\n")
    assert error in done.stderr
    assert bool(error) == ("Traceback" in done.stderr)
