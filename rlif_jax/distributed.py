"""Several processes that compute together: joining, agreeing, ending. No other file knows of them.

All of them run the same program and meet in the same order here, as they do in every stage. With
one process nothing here does anything.
"""

import contextlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from rlif_jax.config import Processes
from rlif_jax.errors import Complete, Outage, UserError, shown

T = TypeVar("T")


def join(asked: Processes) -> None:
    """Meet the other processes, where there are any. Call it before devices are used.

    With `asked.count` 0 JAX finds them out on TPU pods, on GKE and under Slurm; there is one
    process elsewhere. Raises UserError when the processes do not meet.
    """
    if asked.count == 1:
        return
    try:
        with _ended_by_signals():  # it may wait for minutes, and Python sees no signal meanwhile
            if asked.count:
                jax.distributed.initialize(asked.coordinator, asked.count, asked.index)
            else:
                jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        # JAX has found no cluster, or a run before this one in the same process has found none.
        alone = ("coordinator_address should be defined", "must be called before any JAX calls")
        if not asked.count and any(sign in str(error) for sign in alone):
            return
        raise UserError(
            f"the {asked.count or 'other'} processes did not meet: {error}. Give all of them the "
            "same --processes.coordinator HOST:PORT, the host of process 0, the same "
            "--processes.count, and each its own --processes.index; or --processes.count 1 for a "
            "process on its own."
        ) from error
    # What CPUs talk through; other devices have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the process at once, without Python. Enter it in the main thread."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def process_count() -> int:
    """How many processes compute together."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Which of them this is, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return process_index() == 0


def gathered(value: T) -> list[T]:
    """The values of all processes, on every process, in their order; they may differ in kind."""
    if process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes_P = np.asarray(multihost_utils.process_allgather(np.int64(len(data)))).reshape(-1)
    # A power of two: each size is a program of its own, compiled and kept.
    padded = np.zeros(1 << (int(sizes_P.max()) - 1).bit_length(), np.uint8)
    padded[: len(data)] = data
    rows_P = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes_P), -1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows_P, sizes_P, strict=True)]


def by_first(work: Callable[[], T]) -> T:
    """What `work()` gives in the first process, on every process.

    Its UserError is raised on every process.
    """
    if process_count() == 1:
        return work()
    outcome: Any = (None, None)
    if is_first():
        try:
            outcome = (work(), None)
        except UserError as error:  # its text alone: it may hold what cannot be sent
            kind = type(error) if isinstance(error, Outage | Complete) else UserError
            outcome = (None, kind(str(error)))
    value, refusal = gathered(outcome)[0]
    if refusal is not None:
        raise refusal
    return value


def check_same(what: Mapping[str, Any]) -> None:
    """Refuse what is not the same on every process, by name. Raises UserError on all of them."""
    first, *others = gathered(dict(what))
    for index, one in enumerate(others, start=1):
        for name, value in one.items():
            if value != first[name]:
                raise UserError(
                    f"process {index} has {name} {shown(value)}, and process 0 has "
                    f"{shown(first[name])}: give all processes the same command, files and commit "
                    "of a model (hf:ORG/NAME@COMMIT, RUN/checkpoints/STEP)"
                )


def in_turns(parts: Sequence[Sequence[T]]) -> list[T]:
    """Elements of equally long parts as the processes share them out: one of each in turn."""
    return [one for several in zip(*parts, strict=True) for one in several]


def any_of(flag: bool) -> bool:
    """Whether the flag is set on some process."""
    return _flags(flag).any().item()


def all_of(flag: bool) -> bool:
    """Whether the flag is set on every process."""
    return _flags(flag).all().item()


def _flags(flag: bool) -> np.ndarray:
    if process_count() == 1:
        return np.array([flag])
    return np.asarray(multihost_utils.process_allgather(np.array(flag)))


def whole_on_host(tree: Any) -> Any:
    """Arrays that may be split over the devices of all processes, whole as NumPy arrays on each."""
    if process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def least(value: float) -> float:
    """The smallest of the values that the processes have, in float32 when there are several."""
    if process_count() == 1:
        return value
    return float(np.min(multihost_utils.process_allgather(np.float32(value))))


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Of several processes, end this one at once when an exception, or an exit, leaves the block.

    The others wait for this process, and it would wait for them at a barrier: they end when it is
    gone.
    """
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():  # unlike a count, it starts no device
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        status = error.code if isinstance(error, SystemExit) else 1
        os._exit(status if isinstance(status, int) else 1)
