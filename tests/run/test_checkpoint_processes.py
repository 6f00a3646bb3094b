"""Two processes that save, verify and restore one state together."""

import json
import os
import subprocess
import sys

import pytest
from flax import nnx
from support import ROOT
from support.two_processes import free_address

from rlif_jax.config import Optim
from rlif_jax.optimizer import init_state, make_optimizer, state_shapes
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.digest import digests
from rlif_jax.weights.source import load_model


@pytest.mark.slow
def test_what_two_processes_saved_is_restored_by_both_and_by_one(tiny_path, tmp_path):
    folder, address = tmp_path / "checkpoints", free_address()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    script = ROOT / "tests/support/two_savers.py"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), address, rank, str(tiny_path), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    found, again = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    assert found == again  # both have the same digests and have found the same damage
    state = init_state(nnx.split(load_model(str(tiny_path))[0])[1], make_optimizer(Optim()))
    expected = digests(state)
    assert found[:2] == [expected, 3] and "another digest" in found[2]
    assert sorted(path.name for path in folder.iterdir()) == ["1", "damaged-3"]
    checkpoints = Checkpoints(folder, keep=1)
    restored, _, data = checkpoints.restore(state_shapes(state.params, make_optimizer(Optim())))
    assert digests(restored) == expected and data == {"next_index": 1}
    checkpoints.close()
