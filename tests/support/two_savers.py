"""One of two processes that save and restore together: see tests/run/test_checkpoint_processes.py.

python tests/support/two_savers.py ADDRESS RANK MODEL FOLDER
"""

import json
import sys
from pathlib import Path

import jax
from flax import nnx
from jax.experimental.multihost_utils import sync_global_devices

from rlif_jax.config import Optim, Processes
from rlif_jax.distributed import join
from rlif_jax.optimizer import init_state, make_optimizer, state_shapes
from rlif_jax.run.checkpoint import Checkpoints, DamagedCheckpoint
from rlif_jax.run.digest import digests
from rlif_jax.sharding import make_mesh
from rlif_jax.weights.source import load_model


def main(address: str, rank: str, model: str, folder: str) -> None:
    join(Processes(count=2, index=int(rank), coordinator=address))
    mesh, optimizer, home = make_mesh(data=2, fsdp=2), make_optimizer(Optim()), Path(folder)
    with jax.set_mesh(mesh):
        params = nnx.split(load_model(model, mesh=mesh)[0])[1]
        state, shapes = init_state(params, optimizer), state_shapes(params, optimizer)
        checkpoints = Checkpoints(home, keep=1, keep_best=1)
        assert checkpoints.latest() is None
        for step in (1, 2, 3):
            quality = 0.5 if step == 1 else 0.25
            checkpoints.save(step, state, jax.random.key(step), {"next_index": step}, quality)
        assert checkpoints.steps() == [1, 3]
        restored, key, data = checkpoints.restore(shapes)
        assert digests(restored) == digests(state)
        assert (key == jax.random.key(3)).all() and data == {"next_index": 3}
        if rank == "0":
            path = home / "3/data/metadata"
            path.write_text(path.read_text().replace('"next_index": 3', '"next_index": 4'))
        sync_global_devices("the newest checkpoint is damaged")
        try:
            checkpoints.restore(shapes)
        except DamagedCheckpoint as error:
            sync_global_devices("it was found")
            print(json.dumps([digests(state), error.step, error.reason]))
        checkpoints.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
