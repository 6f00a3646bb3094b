"""A process of a candidate as the judge sees it: what it is told and says, its clock, its end."""

import contextlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass

from rlif_jax.execution.worker import Worker

GRACE_S = 60.0  # what a zygote may take to clear away a program that is to end
STDERR_TAIL = 4096
# Room for the sender's credentials alone: descriptors that a program sends are dropped unseen.
CREDENTIALS = socket.CMSG_SPACE(struct.calcsize("3i"))
SLICE_S = 0.1  # longest wait between two looks at the clock


@dataclass(frozen=True)
class Job:
    """One program and its limits. It holds nothing of any expected output.

    `kind` is a test's ("stdin", "functional", "assert"), or "test" for the source of an assert
    test, which is run like a program; `all_assertions` has it go on after one that fails.
    `preamble` is run before `code`. `calls` is how many inputs it may be given, `again` whether a
    whole program may be given them in one process, `own_files` whether it may look into its own
    folder of /proc (where /dev/stdin leads), which takes time to open. `threads` is whether it may
    map more than `memory_bytes`, for the stacks of threads; it may use no more all the same.
    """

    kind: str
    code: str
    entry_point: str | None
    cpu_s: float
    wall_s: float
    memory_bytes: int
    calls: int
    again: bool = False
    own_files: bool = False
    threads: bool = False
    preamble: str = ""
    all_assertions: bool = False


@dataclass(frozen=True)
class Left:
    """What is left of the time for a test, in seconds."""

    cpu_s: float
    wall_s: float


class Process:
    """One fork of a zygote.

    It says "started" on its channel, or why the program does not compile; then lines of its own.
    """

    def __init__(self, worker: Worker, job: Job, code: int, streams: list[int]):
        """Have it forked, with preamble and program in the file `code`; raises ZygoteLost."""
        self._worker, self._job = worker, job
        self._received, self._unsent = bytearray(), bytearray()
        self._pid, self._open = 0, True
        self.started = False
        self.syntax_error: str | None = None
        self.used_s = 0.0
        """CPU seconds to the end of the last line that was heard."""
        self.limit = ""
        self.over = False
        """Whether it wrote more than it may."""
        self.ending: dict | None = None
        message = {
            "do": "run",
            "kind": job.kind,
            "entry_point": job.entry_point,
            "cpu_s": job.cpu_s,
            "memory_bytes": job.memory_bytes,
            "calls": job.calls,
            "again": job.again,
            "own_files": job.own_files,
            "threads": job.threads,
            "preamble": len(job.preamble),
            "all_assertions": job.all_assertions,
        }
        with contextlib.ExitStack() as stack:
            self._channel, theirs = socket.socketpair()
            stack.enter_context(theirs)
            failed = stack.enter_context(contextlib.ExitStack())
            failed.callback(self._channel.close)
            self._channel.setblocking(False)
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._stderr = memory_file(failed)
            worker.send(message, [code, theirs.fileno(), *streams, self._stderr])
            self._files = failed.pop_all()

    @property
    def said_more(self) -> bool:
        """Whether more came with the line that was heard last."""
        return bool(self._received)

    def spoke_unasked(self) -> bool:
        """Tell whether it has said something since, as it may not between two calls."""
        self._take(1)
        return bool(self._received)

    def say(self, data: bytes, fds: list[int]) -> None:
        """Tell it something; what does not fit in the channel follows while it is listened to."""
        self._unsent += data
        self._send(fds)

    def hear(self, limit: int, left: Left | None = None) -> bytes | None:
        """Return its next line; None when it has ended, or has reached a limit.

        `limit` is in bytes; time is limited to what is `left`, else as the job says. `limit` and
        `ending` tell which. Raises ZygoteLost.
        """
        left = left or Left(self._job.cpu_s, self._job.wall_s)
        wall_end = time.monotonic() + left.wall_s
        cpu_end_s = self.used_s + left.cpu_s
        poll = select.poll()
        poll.register(self._worker, select.POLLIN)
        if self._open:
            poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        while (line := self._line()) is None:
            wall_left_s = wall_end - time.monotonic()
            cpu_left_s = cpu_end_s - cpu_used(self._pid)
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
                self._send([])
                if not self._unsent:
                    poll.modify(self._channel, select.POLLIN)
            if happened & ~select.POLLOUT and not self._take(limit):
                poll.unregister(self._channel)
                self._open = False
            if self._worker.fileno() in events and not self._worker.settle():
                self.ending = self._worker.receive(time.monotonic() + GRACE_S)
                self._take(limit)  # every writer is dead by now
                line = self._line()
                break
        self.used_s = cpu_used(self._pid) or self.used_s
        if self._job.threads and peak_bytes(self._pid) > self._job.memory_bytes:
            self.limit = "memory"
            return None
        return line

    def _line(self) -> bytes | None:
        """Return the first line that came and was not heard yet, None before it is whole."""
        while (length := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[:length])
            del self._received[: length + 1]
            if not self.started:
                self.started = line == b"started"
            elif line.startswith(b"syntax ") and not self.used_s:
                self.syntax_error = line[7:].decode(errors="replace")[:300]
            else:
                return line
        return None

    def _send(self, fds: list[int]) -> None:
        try:
            if fds:
                sent = socket.send_fds(self._channel, [self._unsent], fds)
            else:
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

    def end(self) -> None:
        """Have it ended without waiting for that; raises ZygoteLost."""
        if self.ending is None:
            self._worker.send({"do": "end"})
            self._worker.owes += 1  # its answer is read before the next one
        self._files.close()

    def wait(self) -> dict:
        """Have it ended if it has not, and return how it did; raises ZygoteLost.

        The zygote's answer, and the end of what it wrote as `stderr`.
        """
        if self.ending is None:
            self._worker.send({"do": "end"})
            self.ending = self._worker.receive(time.monotonic() + GRACE_S)
        size = os.fstat(self._stderr).st_size
        tail = os.pread(self._stderr, STDERR_TAIL, max(0, size - STDERR_TAIL))
        self._files.close()
        return self.ending | {"stderr": tail}


def cpu_used(pid: int) -> float:
    """Return the CPU seconds of a process so far; 0 before it is known and after it has ended."""
    try:
        # numbered as by clock_getcpuclockid(3)
        return time.clock_gettime((~pid << 3) | 2) if pid else 0.0
    except OSError:
        return 0.0  # RLIMIT_CPU and the zygote's final count remain


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had in use; 0 as for `cpu_used`."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as lines:
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    return 0


def memory_file(stack: contextlib.ExitStack, text: str = "") -> int:
    """Return a descriptor of an unnamed file that holds `text`, read from its start."""
    fd = os.memfd_create("judge")
    stack.callback(os.close, fd)
    if text:
        data = text.encode("utf-8", "surrogatepass")
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], written)
    return fd
