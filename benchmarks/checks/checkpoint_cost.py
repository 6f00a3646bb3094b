"""What a checkpoint costs a run: does it take less than 2% of the time of its steps?

    python -m benchmarks.checks.checkpoint_cost --config=configs/prob_disparity.py

Saves the state of the configuration's model, with random moments, and prints one JSON line for each
figure, with the median and the spread of five saves:

- the seconds that `save` keeps the training waiting, and those until the checkpoint is on disk;
- the seconds of processor time that a save takes, which on a CPU the next step has to share;
- the seconds of the digests in it, beside those of reading and writing the same arrays once;
- its bytes.

The last line is the share of the steps between two checkpoints that last 25 s each: `blocks` counts
the waiting alone, `at_most` also the processor time, spread over all processors. The exit status is
1 when `blocks` is 2% or more.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax.batch import TrainState
from rlif_jax.config import Config, load
from rlif_jax.errors import exit_on_user_error
from rlif_jax.optimizer import init_state, make_optimizer
from rlif_jax.run.checkpoint import Checkpoints
from rlif_jax.run.digest import digests
from rlif_jax.weights.source import load_model

TIMES = 5
STEP_S = 25.0  # the shortest step of the laptop's configuration on two cores
LIMIT = 0.02


def trained_state(cfg: Config) -> TrainState:
    """A state like that of a run: moments of zeros would be compressed to nothing."""
    model, _ = load_model(cfg.model.source, dtype=cfg.model.dtype)
    state = init_state(nnx.split(model)[1], make_optimizer(cfg.optim))

    def noise(x: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.key(x.size), x.shape, x.dtype) if x.ndim else x

    return dataclasses.replace(state, opt_state=jax.tree.map(noise, state.opt_state))


def printed(figure: str, seconds: list[float]) -> float:
    """Print the median and the spread, and return the median."""
    median = statistics.median(seconds)
    line = {"figure": figure, "seconds": round(median, 3)}
    line["spread"] = [round(min(seconds), 3), round(max(seconds), 3)]
    print(json.dumps(line), flush=True)
    return median


def repeated(call: Callable[[], object]) -> list[float]:
    """Wall-clock seconds of each of the calls after a first one, which compiles."""
    seconds = []
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def saves(state: TrainState, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Seconds of `save`, until it is on disk, and of the processor, of each after a first one."""
    checkpoints = Checkpoints(folder, keep=2)
    blocked, on_disk, processor = [], [], []
    for step in range(TIMES + 1):
        start, used = time.perf_counter(), time.process_time()
        checkpoints.save(step, state, jax.random.key(0), {"next_index": step})
        blocked.append(time.perf_counter() - start)
        checkpoints.wait()
        on_disk.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    checkpoints.close()
    return blocked[1:], on_disk[1:], processor[1:]


def main() -> None:
    """Measure, print, and exit with 1 above the limit."""
    with exit_on_user_error():
        cfg = load(prog="python -m benchmarks.checks.checkpoint_cost")
        state = jax.block_until_ready(trained_state(cfg))
    numbers = sum(x.size for x in jax.tree.leaves(state.params))
    with tempfile.TemporaryDirectory(dir=cfg.run_dir or None) as folder:
        blocked, on_disk, processor = saves(state, Path(folder))
        newest = Path(folder) / str(TIMES)
        size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    block = printed("save keeps the training waiting", blocked)
    printed("until it is on disk", on_disk)
    used = printed("the processor's seconds", processor)
    printed("digests of the parameters", repeated(lambda: digests(state.params)))
    printed("digests of the whole state", repeated(lambda: digests(state)))
    copied = jax.jit(lambda tree: jax.tree.map(jnp.negative, tree))
    printed("a read and a write of them", repeated(lambda: jax.block_until_ready(copied(state))))
    print(json.dumps({"figure": "checkpoint", "bytes": size, "parameters": numbers}))
    steps = STEP_S * (cfg.checkpoint.every or cfg.steps)
    share = block / steps
    at_most = (block + used / len(os.sched_getaffinity(0))) / steps
    figure = {"figure": "share of a step", "blocks": round(share, 4), "at_most": round(at_most, 4)}
    print(json.dumps(figure))
    sys.exit(share >= LIMIT)


if __name__ == "__main__":
    main()
