"""The workers that judge one program at a time, replaced when one breaks."""

from collections.abc import Mapping
from pathlib import Path

from rlif_jax.execution.worker import SandboxError, Worker, ZygoteLost


class Slot:
    """A worker for programs and, once a test needs it, a second one for the sources of tests."""

    def __init__(self, scratch: Path, memory_bytes: int):
        self._start = lambda: Worker(scratch, memory_bytes)
        self.worker = self._start()
        self._source_worker: Worker | None = None

    @property
    def source_worker(self) -> Worker:
        """The worker for the sources of tests, which no program may reach."""
        if self._source_worker is None:
            self._source_worker = self._start()
        return self._source_worker

    @property
    def ended(self) -> bool:
        """Whether a worker has ended: one whose folder cannot be emptied does."""
        return any(worker.ended for worker in self._workers())

    def _workers(self) -> list[Worker]:
        return [self.worker, *filter(None, [self._source_worker])]

    def isolation(self) -> Mapping[str, str]:
        """The worker's isolation; a worker that does not start is replaced once.

        Raises SandboxError when the second one does not start either.
        """
        try:
            return self.worker.isolation
        except ZygoteLost:
            self.restart()
        try:
            return self.worker.isolation
        except ZygoteLost as error:
            raise SandboxError(str(error)) from error

    @property
    def shares_pid_namespace(self) -> bool:
        """Whether programs of this worker share a process namespace with its zygote's."""
        try:
            return self.worker.isolation["namespaces"].startswith("none")
        except ZygoteLost:
            return False

    def disconnect(self) -> None:
        for worker in self._workers():
            worker.disconnect()

    def close(self) -> None:
        for worker in self._workers():
            worker.close()

    def restart(self) -> None:
        """Replace both workers; the second one starts again when a test needs it."""
        broken = self._workers()
        self.worker, self._source_worker = self._start(), None
        for worker in broken:
            worker.close()
