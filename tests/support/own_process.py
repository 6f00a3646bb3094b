"""Tests marked `own_process`: each runs in a fresh interpreter, whatever this one has loaded."""

import os
import subprocess
import sys

import pytest

from support import ROOT

_INSIDE = "RLIF_TESTS_OWN_PROCESS"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked test by pytest in a child, which makes fixtures of its own; True: it has run."""
    if pyfuncitem.get_closest_marker("own_process") is None or _INSIDE in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", "-n0", "-m", "", pyfuncitem.nodeid]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {_INSIDE: "1"}, capture_output=True, text=True
    )
    if done.returncode:
        pytest.fail(f"in a process of its own:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return True
