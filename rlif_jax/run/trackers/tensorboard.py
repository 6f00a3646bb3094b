"""TensorBoard: an event file in the run folder's tensorboard/, local or in a bucket."""

import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c

from rlif_jax.run.disk import disk_errors
from rlif_jax.run.trackers.tracked import TrackedRun
from rlif_jax.storage.appended import appended


class TensorBoard:
    """Writes one event file a process; see `Tracker`. Metrics alone: no tables, no files.

    TensorBoard itself forgets the steps that an earlier, killed process wrote after `resume_step`.
    The file is part of the run folder, and a write that fails raises `UserError` as its others do.
    """

    def __init__(self, run: TrackedRun):
        folder = run.folder / "tensorboard"
        self.where = str(folder)
        self._folder = folder
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            # TensorBoard reads files in the order of their names. Nanoseconds keep a run that is
            # restarted within a second off the earlier file.
            name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
            self._file = appended(folder / name)
            self._event(file_version="brain.Event:2")
            start = SessionLog(status=SessionLog.START)
            self._event(step=run.resume_step + 1, session_log=start)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        with disk_errors(self._folder):
            scalars = [Summary.Value(tag=key, simple_value=v) for key, v in values.items()]
            self._event(step=step, summary=Summary(value=scalars))

    def completions(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """See `Tracker`."""

    def artifact(self, path: Path) -> None:
        """See `Tracker`."""

    def close(self) -> None:
        """See `Tracker`."""
        self._file.close()

    def _event(self, **fields: Any) -> None:
        """Append an event, as a TFRecord."""
        # tensorboardX's own writer buffers: after a failed write its rest would fail once more.
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        self._file.append(length + checksums[0] + data + checksums[1])
