"""The process of a function as the judge sees it: what it is told and says, its clock, its end."""

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
from rlif_jax.execution.sandbox.terms import STARTED

STDERR_TAIL = 4096


@dataclass(frozen=True)
class Left:
    """What is left of the time for a test, in seconds."""

    cpu_s: float
    wall_s: float


class Process:
    """One fork of a loader that answers on a channel; a first line says that it has started."""

    def __init__(self, loader: Loader, job: Job):
        """Have it forked."""
        self._loader, self._job = loader, job
        self._received, self._unsent = bytearray(), bytearray()
        self._pid, self._open = 0, True
        self.heard = False
        """Whether it has started, as far as was heard."""
        self.used_s = 0.0
        """CPU seconds to the end of the last line that was heard."""
        self._below_s = 0.0
        self.limit = ""
        self.over = False
        """Whether it wrote more than it may."""
        self.ending: Ending | None = None
        with contextlib.ExitStack() as stack:
            self._channel, theirs = socket.socketpair()
            stack.callback(self._channel.close)
            self._channel.setblocking(False)
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._stderr = memory_file(stack)
            with theirs:
                loader.order([theirs.fileno(), self._stderr])
            self._files = stack.pop_all()

    @property
    def said_more(self) -> bool:
        """Whether more came with the line that was heard last."""
        return bool(self._received)

    def spoke_unasked(self) -> bool:
        """Tell whether it has said something since, as it may not between two calls."""
        self._take(1)
        return bool(self._received)

    def say(self, data: bytes) -> None:
        """Tell it something; what does not fit in the channel follows while it is listened to."""
        self._unsent += data
        self._send()

    def hear(self, limit: int, left: Left) -> bytes | None:
        """Return its next line; None when it has ended, or has reached a limit.

        `limit` is in bytes. `self.limit` and `ending` tell which. Raises ZygoteLost, SandboxError.
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
            self.over = len(self._received) > limit
            if self.over or wall_left_s <= 0 or cpu_left_s <= 0:
                self._take(limit)  # this thread may be late, and the answer have come in time
                if (line := self._line()) is not None:
                    break
                self.limit = "judge" if self.over else "wall" if wall_left_s <= 0 else "cpu"
                return None
            wait_s = min(wall_left_s, cpu_left_s, SLICE_S) + 0.001
            events = dict(poll.poll(wait_s * 1000))
            happened = events.get(self._channel.fileno(), 0) if self._open else 0
            if happened & select.POLLOUT and self._unsent:
                self._send()
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
        if not self._job.lone and self.ending is None:
            self._below_s = max(0.0, self._loader.used_below_s() - own_s)
        self.used_s = own_s + self._below_s or self.used_s
        if self._job.threads and peak_bytes(self._pid) > self._job.memory_bytes:
            self.limit = "memory"
            return None
        return line

    def _own_s(self) -> float:
        """Return the CPU seconds of the process; while it is not there, of the compiler."""
        return cpu_used(self._pid) if self._pid else self._loader.used_s()

    def _line(self) -> bytes | None:
        """Return the first line that came and was not heard yet, None before it is whole."""
        while (length := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:length])
            del self._received[: length + 1]
            if self.heard or line != STARTED:
                return line
            self.heard = True
        return None

    def _send(self) -> None:
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            return
        except ConnectionError:  # it listens no more, and will be heard to have ended
            sent = len(self._unsent)
        del self._unsent[:sent]

    def _take(self, limit: int) -> bool:
        """Read what has come, up to a little over `limit`; False at the end of the channel."""
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
            if not self._pid and ancillary:  # the kernel says who wrote: a number that holds here
                self._pid = struct.unpack_from("i", ancillary[0][2])[0]
        return True

    def wait(self) -> tuple[Ending | None, bytes]:
        """Have it ended if it has not; return how it did, and the end of what it wrote as stderr.

        It has not ended, and never began, where its program does not even compile in time.
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
        """Let go of its channel; the loader ends with it, or has ended it."""
        self._files.close()


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had in use; 0 as for `cpu_used`."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as lines:
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    return 0
