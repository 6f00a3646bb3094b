"""A place for the processes that judge one program at a time, refilled when one breaks."""

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
    def spent(self) -> bool:
        """Whether a worker has ended, as one does whose folder cannot be emptied."""
        return any(worker.spent for worker in self._workers())

    def _workers(self) -> list[Worker]:
        return [self.worker, *filter(None, [self._source_worker])]

    def isolation(self) -> Mapping[str, str]:
        """The worker's isolation; once more with a fresh one when it does not start.

        Raises SandboxError when that does not start either.
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
    def reachable(self) -> bool:
        """Whether programs of this worker share a process namespace with its zygote's."""
        try:
            return self.worker.isolation["namespaces"].startswith("none")
        except ZygoteLost:
            return False

    def hang_up(self) -> None:
        for worker in self._workers():
            worker.hang_up()

    def close(self) -> None:
        for worker in self._workers():
            worker.close()

    def restart(self) -> None:
        """Replace what may be broken; the second worker comes back when it is needed."""
        broken = self._workers()
        self.worker, self._source_worker = self._start(), None
        for worker in broken:
            worker.close()
