"""The judge's side of a loader: requests to it, and the kernel's account of its processes."""

import contextlib
import os
import select
import socket
import struct
import time
from dataclasses import dataclass

from rlif_jax.execution.sandbox import protocol
from rlif_jax.execution.worker import SandboxError, Worker

GRACE_S = 60.0  # time that a loader or a zygote may take to end a process
SLICE_S = 0.1  # longest wait between two looks at the clock
# Room for the sender's credentials only: the kernel drops descriptors that are sent along.
CREDENTIALS = socket.CMSG_SPACE(struct.calcsize("3i"))
_WAITED = struct.Struct("i4x18l")  # a status, and struct rusage of getrusage(2)


@dataclass(frozen=True)
class Job:
    """One program and its limits. It holds nothing of any expected output.

    `kind` is a test's ("stdin", "functional", "assert"), or "test" for the source of an assert
    test, which is run like a program; with `all_assertions` it continues after one that fails.
    `preamble` is run before `code`. `calls` is the largest number of inputs. The flags:

    own_proc: it may read its own folder of /proc (where /dev/stdin leads).
    threads: it may map more than `memory_bytes`, for the stacks of threads, but use no more.
    single_process: it may not fork; processes below it would have to be counted at every call.
    cleanup: its objects may act when they are deleted, which takes time at the end.
    """

    kind: str
    code: str
    entry_point: str | None
    cpu_s: float
    wall_s: float
    memory_bytes: int
    calls: int
    own_proc: bool = False
    threads: bool = False
    single_process: bool = False
    cleanup: bool = True
    preamble: str = ""
    all_assertions: bool = False


@dataclass(frozen=True)
class Ending:
    """How a process ended, and what it and all processes below it used."""

    status: int
    """As of os.wait."""
    cpu_s: float = 0.0
    peak_bytes: int = 0
    """The most memory that one of these processes had in use."""
    limit: str = ""
    """The limit for which it was killed: "cpu", "processes", "memory", "judge"; "" for none."""
    syntax_error: str | None = None
    """The compiler's message when the program does not compile; else None."""


class Loader:
    """A process that forks the tests of one program; `close` leaves nothing behind."""

    def __init__(self, worker: Worker, job: Job):
        """Fork the loader; raises ZygoteLost or SandboxError when the worker fails."""
        self._worker = worker
        self._used_s, self._peak_bytes = 0.0, 0  # of processes that the current one left behind
        self._started = self.compiled = False
        self._gone = False
        self._pid = 0
        self._end: Ending | None = None
        _ = worker.isolation  # waits until the worker can take a job
        worker.read_pending()
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

    def request_fork(self, fds: list[int]) -> None:
        """Fork a process with these descriptors, once the current one has ended."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        with contextlib.suppress(OSError):  # it has ended, which `ending` will report
            self._channel.sendmsg([protocol.RUN], ancillary)

    def stop(self) -> None:
        """Kill the current process, and no later one; raises ZygoteLost."""
        self._worker.send({"do": "stop"})
        self._worker.receive("stopped", time.monotonic() + GRACE_S)

    def used_below_s(self) -> float:
        """Return the CPU seconds of the current process and all below it; raises ZygoteLost."""
        self._worker.send({"do": "count"})
        return self._worker.receive("used_s", time.monotonic() + GRACE_S)

    def ending(self, wait_s: float) -> Ending | None:
        """Wait at most `wait_s` for the current process to end; None if it has not.

        Raises ZygoteLost when the zygote is gone, SandboxError when the loader is.
        """
        deadline = time.monotonic() + wait_s
        while self._end is None:
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            try:
                message, ancillary, _, _ = self._channel.recvmsg(512, CREDENTIALS)
            except ConnectionError:  # reported once, before the messages sent ahead of it
                continue
            if not self._pid and ancillary:  # the kernel translates the sender's id for us
                self._pid = struct.unpack_from("i", ancillary[0][2])[0]
            self._handle(message)
        end = self._end
        if self.compiled:
            self._end = None
            self._used_s, self._peak_bytes = 0.0, 0
        return end

    def _handle(self, message: bytes) -> None:
        if message[:1] in (protocol.ENDED, protocol.LEFT_BEHIND):
            status, *usage = _WAITED.unpack(message[1:])
            self._used_s += usage[0] + usage[2] + 1e-6 * (usage[1] + usage[3])
            self._peak_bytes = max(self._peak_bytes, usage[4] << 10)
            if message[:1] == protocol.ENDED:
                limit = self._worker.limit() if os.WIFSIGNALED(status) else ""
                self._end = Ending(status, self._used_s, self._peak_bytes, limit)
        elif message == protocol.STARTED:
            self._started = True
        elif message == protocol.COMPILED:
            self.compiled = True
        elif message.startswith(protocol.SYNTAX):
            error = message[len(protocol.SYNTAX) :].decode(errors="replace")
            self._end = Ending(0, cpu_s=self.used_s(), syntax_error=error)
        else:  # the loader is gone: the zygote knows its status
            status = self._worker.receive("status", time.monotonic() + GRACE_S)
            self._gone = True
            if self.compiled or not self._started:
                code, said = os.waitstatus_to_exitcode(status), self._worker.stderr_tail()
                raise SandboxError(f"a loader process ended with {code}: {said}")
            self._end = Ending(status)

    def used_s(self) -> float:
        """Return the CPU seconds of the loader itself, which the compiler takes."""
        return cpu_used(self._pid)

    def close(self) -> None:
        """End it with all below it, without waiting; raises ZygoteLost."""
        self._channel.close()
        if not self._gone:
            self._worker.send({"do": "end"})
            self._worker.pending_ends += 1  # its reply is read before the next loader's


def cpu_used(pid: int) -> float:
    """Return the CPU seconds of a process so far; 0 before its id is known and after its end."""
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
