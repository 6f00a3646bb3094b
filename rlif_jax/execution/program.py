"""One program and its tests: a Run for each input."""

import contextlib
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rlif_jax.execution.loader import GRACE_S, SLICE_S, Ending, Job, Loader, memory_file
from rlif_jax.execution.process import STDERR_TAIL, Process, TimeLeft
from rlif_jax.execution.sandbox.protocol import NONCE
from rlif_jax.execution.worker import SandboxError, Worker


@dataclass(frozen=True)
class Run:
    """How a program ran on one input."""

    cpu_s: float
    exit_code: int | None = None
    """Status of the process, negative for a signal; None while it waits for the next input."""
    limit: str = ""
    """The limit it was killed for: "" (none), "cpu", "wall", "processes", "memory", "judge"."""
    syntax_error: str | None = None
    """The compiler's message when the program does not compile; else None."""
    output_limit: int = 0
    """The largest number of bytes it may write or return, if it exceeded that; else 0."""
    stdout: bytes = b""
    stderr: bytes = b""
    claim: tuple[str, str] | None = None
    """From a process that answers on its channel: a kind, such as "result", and JSON text."""
    foreign: bool = False
    """Whether the channel also carried bytes other than the one claim of this call."""

    @property
    def killed_from_outside(self) -> bool:
        """Whether a SIGKILL came from none of our limits: often the host is short of memory."""
        return self.exit_code == -signal.SIGKILL and not self.limit


class Program:
    """One program on one worker; a context manager that leaves nothing of it there.

    A whole program gets a process for each input. A function has one process, which answers one
    input after another with lines `NONCE KIND JSON`; an input's nonce comes with the input, so that
    it cannot be answered early. A process that has ended is replaced for the next input.
    """

    def __init__(self, worker: Worker, job: Job):
        """Raises ZygoteLost or SandboxError when the worker fails."""
        self._job = job
        self._loader = Loader(worker, job)
        self._process: Process | None = None

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self._process.close()
        self._loader.close()

    def runs(self, inputs: Iterable[tuple[str, int]]) -> Iterator[Run]:
        """Run on one input after another; each comes with the largest output in bytes.

        A whole program's next process is requested before the caller has examined the one before,
        except for the second one: most programs that fail do so on the first test. Raises
        ZygoteLost or SandboxError when the machinery fails.
        """
        waiting: deque[_Streams] = deque()
        ahead = 0
        try:
            for text, output_bytes in inputs:
                if self._job.kind != "stdin":
                    yield self.ask(text, output_bytes)
                    continue
                waiting.append(_Streams(text, output_bytes))
                self._loader.request_fork(waiting[-1].fds)
                if len(waiting) > ahead:
                    yield self._wait_for(waiting.popleft())
                    ahead = 1
            while waiting:
                yield self._wait_for(waiting.popleft())
        finally:
            for streams in waiting:
                streams.files.close()

    def _wait_for(self, streams: "_Streams") -> Run:
        """Wait for the end of a requested process, or kill it at a limit."""
        limit = ""
        wall_end = time.monotonic() + self._job.wall_s
        with streams.files:
            while not limit and (ending := self._loader.ending(SLICE_S)) is None:
                if streams.over_limit():
                    limit = "judge"
                elif time.monotonic() >= wall_end:
                    limit = "wall"
                elif not self._loader.compiled and self._loader.used_s() >= self._job.cpu_s:
                    limit = "cpu"
            if limit and self._loader.compiled:
                self._loader.stop()
                ending = self._loader.ending(GRACE_S)
                if ending is None:
                    raise SandboxError(f"a killed process did not end within {GRACE_S:g} s")
            if streams.over_limit():
                return _run(ending, self._job, limit, output_limit=streams.limit)
            stderr = streams.stderr_tail() if ending is None or ending.status else b""
            return _run(ending, self._job, limit, stdout=streams.output(), stderr=stderr)

    def prepare(self) -> None:
        """Fork the process of a function without waiting for it."""
        if self._process is None:
            self._process = Process(self._loader, self._job)

    def ask(self, text: str, output_bytes: int, left: TimeLeft | None = None) -> Run:
        """Send one message to a process that answers on its channel, and return its answer.

        `left` is the time for it when that differs from the job's. Raises ZygoteLost or
        SandboxError when the machinery fails.
        """
        fresh = self._process is None or not self._process.started
        self.prepare()
        process = self._process
        assert process is not None
        early = not fresh and process.wrote_unasked()
        nonce, data = _new_nonce(), text.encode("utf-8", "surrogatepass")
        process.send(b"%s%d\n%s" % (nonce, len(data), data))
        before_s = process.used_s
        left = left or TimeLeft(self._job.cpu_s, self._job.wall_s)
        line = process.receive_line(output_bytes + 4096, left)
        claim, foreign = None, early or (line is not None and process.has_more)
        if line is not None and not line.startswith(nonce):
            foreign = True
        elif line is not None and not foreign:
            kind, _, payload = line[len(nonce) :].decode(errors="replace").partition(" ")
            claim = (kind, payload)
        found = {
            "claim": claim,
            "foreign": foreign,
            "output_limit": output_bytes if process.over_limit else 0,
        }
        if claim and process.ending is None:
            return Run(cpu_s=process.used_s - before_s, **found)
        self._process = None
        ending, stderr = process.wait()
        run = _run(ending, self._job, process.limit)
        if claim:
            found |= {"exit_code": None, "limit": ""}
        return replace(run, cpu_s=run.cpu_s - before_s, stderr=stderr, **found)


def _run(ending: Ending | None, job: Job, limit: str, **found) -> Run:
    """Return the Run of a process by its ending, which is None when it never started."""
    if ending is None:
        return Run(cpu_s=0.0, limit=limit, **found)
    memory = job.threads and ending.peak_bytes > job.memory_bytes
    return Run(
        cpu_s=ending.cpu_s,
        exit_code=os.waitstatus_to_exitcode(ending.status),
        limit=limit or ending.limit or ("memory" if memory else ""),
        syntax_error=ending.syntax_error,
        **found,
    )


class _Streams:
    """The files of one process: its input, and its output and stderr."""

    def __init__(self, text: str, limit: int):
        self.limit, self.files = limit, contextlib.ExitStack()
        self.fds = [memory_file(self.files, text), *(memory_file(self.files) for _ in range(2))]

    def over_limit(self) -> bool:
        """Tell whether the output exceeds the limit."""
        return os.fstat(self.fds[1]).st_size > self.limit

    def output(self) -> bytes:
        """Return the output."""
        data = bytearray()
        while piece := os.pread(self.fds[1], self.limit + 1, len(data)):
            data += piece
        return bytes(data)

    def stderr_tail(self) -> bytes:
        """Return the last part of stderr."""
        size = os.fstat(self.fds[2]).st_size
        return os.pread(self.fds[2], STDERR_TAIL, max(0, size - STDERR_TAIL))


def _new_nonce() -> bytes:
    return secrets.token_hex(NONCE // 2).encode() + b" "
