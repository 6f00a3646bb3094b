"""The process of a function as the judge sees it: its channel, its time, its end."""

import contextlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass

from rlif_jax.execution.loader import (
    CREDENTIALS,
    GRACE_S,
    SLICE_S,
    Ending,
    Job,
    Loader,
    cpu_used,
    memory_file,
)
from rlif_jax.execution.sandbox.protocol import STARTED

STDERR_TAIL = 4096


@dataclass(frozen=True)
class TimeLeft:
    """Seconds left for a test."""

    cpu_s: float
    wall_s: float


class Process:
    """One fork of a loader that answers on a channel; its first line reports its start."""

    def __init__(self, loader: Loader, job: Job):
        """Fork it."""
        self._loader, self._job = loader, job
        self._received, self._unsent = bytearray(), bytearray()
        self._pid, self._open = 0, True
        self.started = False
        """Whether its first line has arrived."""
        self.used_s = 0.0
        """CPU seconds up to the last line received."""
        self._below_s = 0.0
        self.limit = ""
        self.over_limit = False
        """Whether it wrote more than the limit."""
        self.ending: Ending | None = None
        with contextlib.ExitStack() as stack:
            self._channel, theirs = socket.socketpair()
            stack.callback(self._channel.close)
            self._channel.setblocking(False)
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._stderr = memory_file(stack)
            with theirs:
                loader.request_fork([theirs.fileno(), self._stderr])
            self._files = stack.pop_all()

    @property
    def has_more(self) -> bool:
        """Whether more bytes arrived with the last line."""
        return bool(self._received)

    def wrote_unasked(self) -> bool:
        """Tell whether it has written since the last line, which is forbidden between two calls."""
        self._take(1)
        return bool(self._received)

    def send(self, data: bytes) -> None:
        """Send bytes; what does not fit in the channel follows in `receive_line`."""
        self._unsent += data
        self._flush()

    def receive_line(self, limit: int, left: TimeLeft) -> bytes | None:
        """Return its next line; None when it has ended, or has reached a limit.

        `limit` is in bytes. `self.limit` and `self.ending` say which. Raises ZygoteLost,
        SandboxError.
        """
        wall_end = time.monotonic() + left.wall_s
        cpu_end_s = self.used_s + left.cpu_s
        poll = select.poll()
        poll.register(self._loader, select.POLLIN)
        if self._open:
            poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        while (line := self._line()) is None:
            wall_left_s = wall_end - time.monotonic()
            cpu_left_s = cpu_end_s - self._below_s - self._own_s()
            self.over_limit = len(self._received) > limit
            if self.over_limit or wall_left_s <= 0 or cpu_left_s <= 0:
                self._take(limit)  # this thread may be late although the answer came in time
                if (line := self._line()) is not None:
                    break
                self.limit = "judge" if self.over_limit else "wall" if wall_left_s <= 0 else "cpu"
                return None
            wait_s = min(wall_left_s, cpu_left_s, SLICE_S) + 0.001
            events = dict(poll.poll(wait_s * 1000))
            happened = events.get(self._channel.fileno(), 0) if self._open else 0
            if happened & select.POLLOUT and self._unsent:
                self._flush()
                if not self._unsent:
                    poll.modify(self._channel, select.POLLIN)
            if happened & ~select.POLLOUT and not self._take(limit):
                poll.unregister(self._channel)
                self._open = False
            if self._loader.fileno() in events:
                self.ending = self._loader.ending(0.0)
                if self.ending is not None:
                    self._take(limit)  # every writer is dead by now
                    line = self._line()
                    break
        own_s = self._own_s()
        if not self._job.single_process and self.ending is None:
            self._below_s = max(0.0, self._loader.used_below_s() - own_s)
        self.used_s = own_s + self._below_s or self.used_s
        if self._job.threads and peak_bytes(self._pid) > self._job.memory_bytes:
            self.limit = "memory"
            return None
        return line

    def _own_s(self) -> float:
        """Return the CPU seconds of the process, or of the compiler before it exists."""
        return cpu_used(self._pid) if self._pid else self._loader.used_s()

    def _line(self) -> bytes | None:
        """Return the next unread line; None before it is complete."""
        while (length := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:length])
            del self._received[: length + 1]
            if self.started or line != STARTED:
                return line
            self.started = True
        return None

    def _flush(self) -> None:
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            return
        except ConnectionError:  # it has ended, which the loader will report
            sent = len(self._unsent)
        del self._unsent[:sent]

    def _take(self, limit: int) -> bool:
        """Read what has arrived, up to a little over `limit`; False at the end of the channel."""
        while len(self._received) <= limit:
            try:
                piece, ancillary, _, _ = self._channel.recvmsg(1 << 16, CREDENTIALS)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not piece:
                return False
            self._received += piece
            if not self._pid and ancillary:  # the kernel translates the sender's id for us
                self._pid = struct.unpack_from("i", ancillary[0][2])[0]
        return True

    def wait(self) -> tuple[Ending | None, bytes]:
        """Kill it if it runs; return how it ended, and the last part of its stderr.

        The ending is None when its program did not compile in time, so that it never started.
        Raises ZygoteLost, SandboxError.
        """
        if self.ending is None and self._loader.compiled:
            self._loader.stop()
            self.ending = self._loader.ending(GRACE_S)
        size = os.fstat(self._stderr).st_size
        tail = os.pread(self._stderr, STDERR_TAIL, max(0, size - STDERR_TAIL))
        self._files.close()
        return self.ending, tail

    def close(self) -> None:
        """Close its channel; the loader ends it."""
        self._files.close()


def peak_bytes(pid: int) -> int:
    """Return the peak resident bytes of a process; 0 as for `cpu_used`."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as lines:
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    return 0
