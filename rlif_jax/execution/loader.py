"""The judge's side of a loader: what it is asked for, and what the kernel says of its processes."""

import contextlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass

from rlif_jax.execution.sandbox import terms
from rlif_jax.execution.worker import SandboxError, Worker

GRACE_S = 60.0  # what a loader or a zygote may take to clear away what is to end
SLICE_S = 0.1  # longest wait between two looks at the clock
# Room for the sender's credentials alone: descriptors that are sent along are dropped unseen.
CREDENTIALS = socket.CMSG_SPACE(struct.calcsize("3i"))
_WAITED = struct.Struct("i4x18l")  # a status, and struct rusage of getrusage(2)


@dataclass(frozen=True)
class Job:
    """One program and its limits. It holds nothing of any expected output.

    `kind` is a test's ("stdin", "functional", "assert"), or "test" for the source of an assert
    test, which is run like a program; `all_assertions` has it go on after one that fails.
    `preamble` is run before `code`. `calls` is how many inputs it may be given. `own_files` is
    whether it may look into its own folder of /proc (where /dev/stdin leads), `threads` whether it
    may map more than `memory_bytes`, for the stacks of threads (it may use no more all the same),
    `lone` whether it may not fork processes, whose use has to be counted at every call, and `tidy`
    whether its objects may have something to do at its end, which takes time.
    """

    kind: str
    code: str
    entry_point: str | None
    cpu_s: float
    wall_s: float
    memory_bytes: int
    calls: int
    own_files: bool = False
    threads: bool = False
    lone: bool = False
    tidy: bool = True
    preamble: str = ""
    all_assertions: bool = False


@dataclass(frozen=True)
class Ending:
    """How a process ended, and what it and all below it have used."""

    status: int
    """As of os.wait."""
    cpu_s: float = 0.0
    peak_bytes: int = 0
    """The most memory that one of these processes had in use."""
    limit: str = ""
    """What it was ended for: "" (nothing), "cpu", "processes", "memory", "judge"."""
    syntax_error: str | None = None
    """Why the program could not be compiled, None when it could."""


class Loader:
    """A process that forks others of one program; leaves nothing when it is closed."""

    def __init__(self, worker: Worker, job: Job):
        """Have it forked; raises ZygoteLost or SandboxError when the worker cannot be had."""
        self._worker = worker
        self._used_s, self._peak_bytes = 0.0, 0  # of what the present process has left behind
        self._started = self.compiled = False
        self._gone = False
        self._pid = 0
        self._end: Ending | None = None
        _ = worker.isolation  # waits until it can take a job
        worker.settle()
        message = {"do": "run"} | vars(job) | {"code": "", "preamble": len(job.preamble)}
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as stack, theirs:
            self._poll = select.poll()
            self._poll.register(self._channel, select.POLLIN)
            self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            code = memory_file(stack, job.preamble + job.code)
            try:
                worker.send(message, [code, theirs.fileno()])
            except BaseException:
                self._channel.close()
                raise

    def fileno(self) -> int:
        return self._channel.fileno()

    def order(self, fds: list[int]) -> None:
        """Have it fork a process with these descriptors, once the present one has ended."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        with contextlib.suppress(OSError):  # it has ended, which will be heard
            self._channel.sendmsg([terms.RUN], ancillary)

    def stop(self) -> None:
        """Have the present process killed; on return no later one can be; raises ZygoteLost."""
        self._worker.send({"do": "stop"})
        self._worker.receive("stopped", time.monotonic() + GRACE_S)

    def used_below_s(self) -> float:
        """Return the CPU seconds of the present process and all below it; raises ZygoteLost."""
        self._worker.send({"do": "count"})
        return self._worker.receive("used_s", time.monotonic() + GRACE_S)

    def ending(self, wait_s: float) -> Ending | None:
        """Wait for the end of the present process; None if it has not come.

        Raises ZygoteLost when the zygote is gone, SandboxError when the loader is.
        """
        deadline = time.monotonic() + wait_s
        while self._end is None:
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            try:
                message, ancillary, _, _ = self._channel.recvmsg(512, CREDENTIALS)
            except ConnectionError:  # said once, ahead of what it said before it ended
                continue
            if not self._pid and ancillary:  # the kernel says who wrote: a number that holds here
                self._pid = struct.unpack_from("i", ancillary[0][2])[0]
            self._heard(message)
        end = self._end
        if self.compiled:
            self._end = None
            self._used_s, self._peak_bytes = 0.0, 0
        return end

    def _heard(self, message: bytes) -> None:
        if message[:1] in (terms.ENDED, terms.LEFT_BEHIND):
            status, *usage = _WAITED.unpack(message[1:])
            self._used_s += usage[0] + usage[2] + 1e-6 * (usage[1] + usage[3])
            self._peak_bytes = max(self._peak_bytes, usage[4] << 10)
            if message[:1] == terms.ENDED:
                limit = self._worker.limit() if os.WIFSIGNALED(status) else ""
                self._end = Ending(status, self._used_s, self._peak_bytes, limit)
        elif message == terms.STARTED:
            self._started = True
        elif message == terms.COMPILED:
            self.compiled = True
        elif message.startswith(terms.SYNTAX):
            error = message[len(terms.SYNTAX) :].decode(errors="replace")
            self._end = Ending(0, cpu_s=self.used_s(), syntax_error=error)
        else:  # it is gone: the zygote knows how
            status = self._worker.receive("status", time.monotonic() + GRACE_S)
            self._gone = True
            if self.compiled or not self._started:
                code = os.waitstatus_to_exitcode(status)
                raise SandboxError(f"a loader ended with {code}: {self._worker.complaint()}")
            self._end = Ending(status)

    def used_s(self) -> float:
        """Return the CPU seconds of the loader itself: those that the compiler takes."""
        return cpu_used(self._pid)

    def close(self) -> None:
        """Have it ended, with all below it, without waiting for that; raises ZygoteLost."""
        self._channel.close()
        if not self._gone:
            self._worker.send({"do": "end"})
            self._worker.owes += 1  # its answer is read before the next one


def cpu_used(pid: int) -> float:
    """Return the CPU seconds of a process so far; 0 before it is known and after it has ended."""
    try:
        # numbered as by clock_getcpuclockid(3)
        return time.clock_gettime((~pid << 3) | 2) if pid else 0.0
    except OSError:
        return 0.0  # RLIMIT_CPU and the loader's final count remain


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
