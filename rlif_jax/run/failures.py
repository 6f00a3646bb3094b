"""Batches whose numbers are not finite: kept to be looked at, and too many of them end a life."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any, cast

import jax
import numpy as np

from rlif_jax.console.notice import Notice
from rlif_jax.distributed import is_first
from rlif_jax.errors import UserError
from rlif_jax.run.disk import disk_errors
from rlif_jax.storage.folder import Folder
from rlif_jax.storage.whole_file import write_whole

FOLDER = "failures"


class Diverged(Exception):
    """A step has left out more batches than `failures.skipped_batches`."""


class SkippedBatches:
    """The batches that the steps of a run leave out, at most `most` in a row.

    Each goes to `failures/step_NNNNNN_I.npz` in the run folder, the arrays of what was drawn by
    name, where I is 1 for the first that its step leaves out. `note` is told.
    """

    def __init__(self, folder: Folder, most: int, note: Notice):
        self._folder, self._most, self._note = folder / FOLDER, most, note
        self.in_a_row = 0
        """Batches that the current step has left out."""

    def skip(self, step: int, reason: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Leave out a batch of step `step`.

        Raises:
            Diverged: it is one too many.
            UserError: the folder cannot be written.
        """
        self.in_a_row += 1
        path = self._folder / f"step_{step:06d}_{self.in_a_row}.npz"
        if is_first():
            with disk_errors(path):
                self._folder.mkdir(exist_ok=True)
                np.savez(file := io.BytesIO(), **cast(Any, arrays))
                write_whole(path, file.getvalue())
        self._note(f"step {step} leaves out a batch: {reason}. It is kept in {path}")
        if self.in_a_row > self._most:
            raise Diverged(
                f"step {step} has left out {self.in_a_row} batches in a row, the last because "
                f"{reason}"
            )


def key_of_step(key: jax.Array, step: int, skipped: int) -> jax.Array:
    """The random key of a step that has left out `skipped` batches."""
    of_step = jax.random.fold_in(key, step)
    return jax.random.fold_in(of_step, _AFTER_SKIPPED + skipped) if skipped else of_step


def key_of_life(key: jax.Array, rollbacks: int) -> jax.Array:
    """The random key of a run that has returned to its newest checkpoint `rollbacks` times.

    `key` is that of the checkpoint.
    """
    return jax.random.fold_in(key, _ROLLED_BACK + rollbacks) if rollbacks else key


@contextlib.contextmanager
def memory_advice() -> Iterator[None]:
    """Turn a device's lack of memory into a UserError that says what to change."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"a device has too little memory: {str(error).splitlines()[0]}. Lower "
            "--sampling.slots, --sampling.cache-gib or --loss.tokens-per-micro-batch, or raise "
            "--mesh.fsdp. `python -m rlif_jax.plan` with the same --config and a --topology says "
            "how much each stage takes, and its --search finds settings that fit."
        ) from error


_ROLLED_BACK = 2**31  # apart from the steps, whose keys are folded with their number
_AFTER_SKIPPED = 2**30  # apart from the rounds of a step, whose keys are folded with their number
