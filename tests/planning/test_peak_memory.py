"""What a plan says of memory is what a process comes to hold."""

import json
import os
import subprocess
import sys

import pytest
from support import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["update", "score"])
@pytest.mark.parametrize("devices", [1, 8])
def test_planned_memory_is_what_a_stage_holds(stage, devices):
    """One device, and eight of a mesh with fsdp and tensor: within 20% of the peak."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "support.peak_memory", stage, str(devices)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["planned"] > 100 * 2**20  # large beside what a process holds of its own
    assert figures["planned"] == pytest.approx(figures["held"], rel=0.2), figures
