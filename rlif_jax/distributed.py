"""Several processes that compute together: joining, agreeing, ending. No other file knows of them.

With one process nothing here does anything.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rlif_jax.errors import UserError


def join(count: int, index: int, coordinator: str = "") -> bool:
    """Meet the other processes of `count` as number `index`; whether this is the first of them.

    The first judges, writes and speaks. `coordinator` is its HOST:PORT; empty where JAX finds that
    out, on TPU pods and under Slurm. Call it before devices are used. Raises UserError when the
    processes do not meet.
    """
    if count > 1:
        # What CPUs talk through; other devices have their own.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        try:
            jax.distributed.initialize(coordinator or None, count, index)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"the {count} processes did not meet: {error}. Give all of them the same "
                "--processes.coordinator HOST:PORT, the host of process 0, and each its own index."
            ) from error
    return index == 0


def from_first(values: np.ndarray) -> np.ndarray:
    """The values of process 0, on every process that joined; all have one shape and type."""
    if not jax.distributed.is_initialized():  # which starts no device, unlike to count processes
        return values
    return np.asarray(multihost_utils.broadcast_one_to_all(values))


def whole_on_host(tree: Any) -> Any:
    """Arrays that may be split over the devices of all processes, whole as NumPy arrays on each."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def least(value: float) -> float:
    """The smallest of the values that the processes have, in float32 when there are several."""
    if jax.process_count() == 1:
        return value
    return float(np.min(multihost_utils.process_allgather(np.float32(value))))


@contextlib.contextmanager
def ending_together(count: int) -> Iterator[None]:
    """Of `count` processes, end this one at once when an exception, or an exit, leaves the block.

    The others wait for this process, and it would wait for them at a barrier: they end when it is
    gone.
    """
    try:
        yield
    except BaseException as error:
        if count == 1:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        status = error.code if isinstance(error, SystemExit) else 1
        os._exit(status if isinstance(status, int) else 1)
