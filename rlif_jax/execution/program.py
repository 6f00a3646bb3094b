"""The judge's side of one program: give it inputs, time it, collect what it says."""

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass

from rlif_jax.execution.worker import Worker

GRACE_S = 60.0  # what a zygote may take to clear away a program that is to end
STDERR_TAIL = 4096
SLICE_S = 0.1  # longest wait between two looks at the clock


@dataclass(frozen=True)
class Job:
    """One program and its limits. It holds nothing of any expected output.

    `calls` is how many inputs it may be given, `again` whether a whole program may be given them in
    one process, `own_files` whether it may look into its own folder of /proc (where /dev/stdin
    leads), which takes time to open.
    """

    kind: str
    code: str
    entry_point: str | None
    cpu_s: float
    wall_s: float
    memory_bytes: int
    calls: int
    again: bool
    own_files: bool


@dataclass(frozen=True)
class Run:
    """What became of a program on one input."""

    cpu_s: float
    exit_code: int | None = None
    """Status of the process, negative for a signal; None if it waits for the next input."""
    limit: str = ""
    """What it was ended for: "" (nothing), "cpu", "wall", "processes", "memory", "judge"."""
    fresh: bool = True
    """Whether this was the first input of its process."""
    started: bool = True
    """Whether the process got as far as looking at the program."""
    syntax_error: str | None = None
    """Why the program could not be compiled, None when it could."""
    output_limit: bool = False
    stdout: bytes = b""
    stderr: bytes = b""
    claim: tuple[str, str] | None = None
    """Of a process that answers on its channel: a kind and JSON text, as "result" and a value."""
    foreign: bool = False
    """The channel also carried bytes that are not the one claim of this call."""

    @property
    def killed_by_a_stranger(self) -> bool:
        """Whether SIGKILL came from none of our limits: often the host is short of memory."""
        return self.exit_code == -signal.SIGKILL and not self.limit


class Program:
    """One program on one worker; close it to leave nothing of it there.

    Its process talks on a channel. It says "started", or why the program does not compile; then,
    for each input that it answers there, `NONCE KIND JSON`. A call's nonce is known to it only with
    the call, so that it cannot answer ahead of time. A process that has ended is replaced for the
    next input.
    """

    def __init__(self, worker: Worker, job: Job):
        """Raises ZygoteLost or SandboxError when the worker cannot be had."""
        self._worker, self._job = worker, job
        _ = worker.isolation  # waits until it can take a job
        self._stack = contextlib.ExitStack()
        self._code = _memory_file(self._stack, job.code)
        self._channel: socket.socket | None = None

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._stack:
            self.end()

    def end(self) -> None:
        """End the process that waits for an input, if there is one; raises ZygoteLost."""
        if self._channel is not None:
            self._worker.send({"do": "end"})
            self._worker.owes += 1  # its answer is read before the next one
            self._process.close()
            self._channel = None

    def test(self, text: str, output_bytes: int) -> Run:
        """Run the program on one input, or call its function with the arguments in `text`.

        Raises ZygoteLost or SandboxError when the machinery fails.
        """
        with contextlib.ExitStack() as stack:
            if self._job.kind == "functional":
                return self._exchange(text.encode("utf-8", "surrogatepass"), [], output_bytes)
            stdin, stdout = _memory_file(stack, text), _memory_file(stack)
            run = self._exchange(None, [stdin, stdout], 1024)
            written = os.fstat(stdout).st_size
            over = written > output_bytes
            output = b"" if over else _contents(stdout, written)
            return Run(**vars(run) | {"output_limit": over, "stdout": output})

    def _exchange(self, arguments: bytes | None, fds: list[int], limit: int) -> Run:
        """Hand over one input; wait for the answer, the end of the process, or a limit."""
        fresh, early = self._channel is None, b""
        nonce = secrets.token_hex(16).encode() + b" "
        if fresh:
            self._start(fds)
            fds = []
        else:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                early = self._channel.recv(1 << 16)
        request = nonce if arguments is None else b"%s%d\n%s" % (nonce, len(arguments), arguments)
        talk = _Talk(self._channel, self._worker, fresh, limit + 4096)
        talk.hold(request, fds, self._job.cpu_s, self._job.wall_s, self._pid, self._used_s)
        self._pid = talk.pid
        answered = talk.answer.startswith(nonce) and talk.answer.endswith(b"\n")
        foreign = bool(early or (talk.answer and not answered) or talk.answer.count(b"\n") > 1)
        claim = None
        if answered and not foreign:
            kind, _, payload = talk.answer[len(nonce) : -1].decode(errors="replace").partition(" ")
            claim = (kind, payload)
        found = {"fresh": fresh, "started": talk.started, "syntax_error": talk.syntax_error}
        found |= {"claim": claim, "foreign": foreign, "output_limit": talk.over}
        if claim and not talk.limit and talk.ending is None:  # it waits for the next input
            before_s, self._used_s = self._used_s, _cpu_used(self._pid)
            return Run(cpu_s=self._used_s - before_s, **found)
        before_s = self._used_s
        if talk.ending is None:
            self._worker.send({"do": "end"})
        ending = self._end_of_process(talk.ending)
        return Run(
            cpu_s=ending["cpu_s"] - before_s,
            exit_code=None if claim else os.waitstatus_to_exitcode(ending["status"]),
            limit=talk.limit or ending["limit"],
            stderr=ending["stderr"],
            **found,
        )

    def _start(self, fds: list[int]) -> None:
        """Have a process forked for this program, with these standard streams."""
        job = self._job
        message = {
            "do": "run",
            "kind": job.kind,
            "entry_point": job.entry_point,
            "cpu_s": job.cpu_s,
            "memory_bytes": job.memory_bytes,
            "calls": job.calls,
            "again": job.again,
            "own_files": job.own_files,
        }
        self._pid, self._used_s = 0, 0.0
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._channel, self._process = ours, contextlib.ExitStack()
            self._stack.push(self._process)
            self._process.callback(ours.close)
            self._stderr = _memory_file(self._process)
            sent = [self._code, theirs.fileno(), *fds, self._stderr]
            self._worker.send(message, sent)

    def _end_of_process(self, ending: dict | None = None) -> dict:
        """Wait for the zygote's word on how the process ended, with the end of its stderr."""
        if ending is None:
            ending = self._worker.receive(time.monotonic() + GRACE_S)
        size = os.fstat(self._stderr).st_size
        ending["stderr"] = os.pread(self._stderr, STDERR_TAIL, max(0, size - STDERR_TAIL))
        self._process.close()
        self._channel = None
        return ending


class _Talk:
    """One exchange with a process: what it is told, what it says, and how long it takes."""

    def __init__(self, channel: socket.socket, worker: Worker, fresh: bool, limit: int):
        self._channel, self._worker, self._limit = channel, worker, limit
        self._received = bytearray()
        self._heard_start = not fresh
        self._said_nothing = fresh
        self._open = True
        self.pid = 0
        self.limit = ""
        self.ending: dict | None = None

    @property
    def started(self) -> bool:
        """Whether the process has said so, now or before an earlier input."""
        return not self._said_nothing

    @property
    def syntax_error(self) -> str | None:
        """Why the program does not compile, None if it does."""
        head, _, rest = bytes(self._received).partition(b"\n")
        if self._heard_start or not rest.startswith(b"syntax ") or head != b"started":
            return None
        return json.loads(rest.removeprefix(b"syntax ").partition(b"\n")[0])

    @property
    def answer(self) -> bytes:
        """What came after the start of the process and the word on the compilation."""
        if self._heard_start:
            return bytes(self._received)
        rest = bytes(self._received).partition(b"\n")[2]
        return b"" if rest.startswith(b"syntax ") else rest

    @property
    def over(self) -> bool:
        """Whether the process has written more than it may."""
        return len(self._received) > self._limit

    def hold(
        self,
        request: bytes,
        fds: list[int],
        cpu_s: float,
        wall_s: float,
        pid: int,
        used_s: float,
    ) -> None:
        """Send the request; return when there is an answer, an ending or a limit is reached.

        The process, `pid` once that is known, had used `used_s` CPU seconds before. Raises
        ZygoteLost when the zygote has ended.
        """
        self.pid = pid
        wall_end = time.monotonic() + wall_s
        to_send = self._send(memoryview(request), fds)
        poll = select.poll()
        poll.register(self._worker, select.POLLIN)
        poll.register(self._channel, select.POLLIN | (select.POLLOUT if to_send else 0))
        while not self.over and not self._complete():
            wall_left_s = wall_end - time.monotonic()
            cpu_left_s = cpu_s + used_s - _cpu_used(self.pid)
            if wall_left_s <= 0 or cpu_left_s <= 0:
                self.limit = "wall" if wall_left_s <= 0 else "cpu"
                return
            wait_s = min(wall_left_s, cpu_left_s, SLICE_S) + 0.001
            events = dict(poll.poll(wait_s * 1000))
            happened = events.get(self._channel.fileno(), 0) if self._open else 0
            if happened & select.POLLOUT and to_send:
                to_send = self._send(to_send, [])
                if not to_send:
                    poll.modify(self._channel, select.POLLIN)
            if happened & ~select.POLLOUT and not self._take():
                poll.unregister(self._channel)
                self._open = False
            if self._worker.fileno() in events and not self._worker.settle():
                self.ending = self._worker.receive(time.monotonic() + GRACE_S)
                self._take()  # every writer is dead by now
                return

    def _send(self, data: memoryview, fds: list[int]) -> memoryview:
        """Send what can be sent at once; return the rest, nothing if nobody listens."""
        try:
            sent = socket.send_fds(self._channel, [data], fds) if fds else self._channel.send(data)
        except BlockingIOError:
            return data
        except ConnectionError:
            return data[:0]
        return data[sent:]

    def _complete(self) -> bool:
        return b"\n" in self.answer or (self._received.endswith(b"\n") and self._heard_start)

    def _take(self) -> bool:
        """Read what has come, up to a little over the limit; False at the end of the channel."""
        while not self.over:
            try:
                piece, ancillary, _, _ = self._channel.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not piece:
                return False
            self._received += piece
            if self._said_nothing and self._received.startswith(b"started\n"):
                self._said_nothing = False
            if not self.pid and ancillary:  # the kernel says who wrote: a number that holds here
                self.pid = struct.unpack_from("i", ancillary[0][2])[0]
        return True


def _cpu_used(pid: int) -> float:
    """Return the CPU seconds of a process so far; 0 before it is known and after it has ended."""
    try:
        # numbered as by clock_getcpuclockid(3)
        return time.clock_gettime((~pid << 3) | 2) if pid else 0.0
    except OSError:
        return 0.0  # RLIMIT_CPU and the zygote's final count remain


def _memory_file(stack: contextlib.ExitStack, text: str = "") -> int:
    """Return a descriptor of an unnamed file that holds `text`, read from its start."""
    fd = os.memfd_create("judge")
    stack.callback(os.close, fd)
    if text:
        data = text.encode("utf-8", "surrogatepass")
        written = 0
        while written < len(data):
            written += os.pwrite(fd, data[written:], written)
    return fd


def _contents(fd: int, size: int) -> bytes:
    data = bytearray()
    while piece := os.pread(fd, size - len(data), len(data)):
        data += piece
    return bytes(data)
