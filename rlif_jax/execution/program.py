"""One program and its tests: what becomes of it on each input."""

import contextlib
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rlif_jax.execution.loader import GRACE_S, SLICE_S, Ending, Job, Loader, memory_file
from rlif_jax.execution.process import STDERR_TAIL, Left, Process
from rlif_jax.execution.sandbox.terms import NONCE
from rlif_jax.execution.worker import SandboxError, Worker


@dataclass(frozen=True)
class Run:
    """What became of a program on one input."""

    cpu_s: float
    exit_code: int | None = None
    """Status of the process, negative for a signal; None if it waits for the next input."""
    limit: str = ""
    """What it was ended for: "" (nothing), "cpu", "wall", "processes", "memory", "judge"."""
    syntax_error: str | None = None
    """Why the program could not be compiled, None when it could."""
    output_limit: int = 0
    """The bytes that it may write or return, if it did more than that; else 0."""
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
    """One program on one worker; a context manager, to leave nothing of it there.

    A whole program gets a process for each input. A function has one process, which answers one
    input after another with lines `NONCE KIND JSON`; an input's nonce comes with the input, so that
    it cannot be answered ahead of time. A process that has ended is replaced for the next input.
    """

    def __init__(self, worker: Worker, job: Job):
        """Raises ZygoteLost or SandboxError when the worker cannot be had."""
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
        """Run on one input after another; each comes with the bytes that may be written for it.

        A whole program's next process is ordered before the caller has looked at the one before,
        except for the second one: most programs that fail do so at once. Raises ZygoteLost or
        SandboxError when the machinery fails.
        """
        waiting: deque[_Streams] = deque()
        ahead = 0
        try:
            for text, output_bytes in inputs:
                if self._job.kind != "stdin":
                    yield self.ask(text, output_bytes)
                    continue
                waiting.append(_Streams(text, output_bytes))
                self._loader.order(waiting[-1].fds)
                if len(waiting) > ahead:
                    yield self._end_of(waiting.popleft())
                    ahead = 1
            while waiting:
                yield self._end_of(waiting.popleft())
        finally:
            for streams in waiting:
                streams.files.close()

    def _end_of(self, streams: "_Streams") -> Run:
        """Wait for the end of a process that has been ordered, and see to it."""
        limit = ""
        wall_end = time.monotonic() + self._job.wall_s
        with streams.files:
            while not limit and (ending := self._loader.ending(SLICE_S)) is None:
                if streams.over():
                    limit = "judge"
                elif time.monotonic() >= wall_end:
                    limit = "wall"
                elif not self._loader.compiled and self._loader.used_s() >= self._job.cpu_s:
                    limit = "cpu"
            if limit and self._loader.compiled:
                self._loader.stop()
                ending = self._loader.ending(GRACE_S)
                if ending is None:
                    raise SandboxError("a loader does not end a process")
            if streams.over():
                return _run(ending, self._job, limit, output_limit=streams.limit)
            stderr = streams.complaint() if ending is None or ending.status else b""
            return _run(ending, self._job, limit, stdout=streams.output(), stderr=stderr)

    def prepare(self) -> None:
        """Have the process of a function made, while there is something else to do."""
        if self._process is None:
            self._process = Process(self._loader, self._job)

    def ask(self, text: str, output_bytes: int, left: Left | None = None) -> Run:
        """Say one thing to a process that answers on its channel, and hear what it says to that.

        `left` is the time for it where that is not what the job says. Raises ZygoteLost or
        SandboxError when the machinery fails.
        """
        fresh = self._process is None or not self._process.heard
        self.prepare()
        process = self._process
        assert process is not None
        early = not fresh and process.spoke_unasked()
        nonce, data = _new_nonce(), text.encode("utf-8", "surrogatepass")
        process.say(b"%s%d\n%s" % (nonce, len(data), data))
        before_s = process.used_s
        left = left or Left(self._job.cpu_s, self._job.wall_s)
        line = process.hear(output_bytes + 4096, left)
        claim, foreign = None, early or (line is not None and process.said_more)
        if line is not None and not line.startswith(nonce):
            foreign = True
        elif line is not None and not foreign:
            kind, _, payload = line[len(nonce) :].decode(errors="replace").partition(" ")
            claim = (kind, payload)
        found = {
            "claim": claim,
            "foreign": foreign,
            "output_limit": output_bytes if process.over else 0,
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
    """Return what is known of a process by its end, which has not come where it was `limit`."""
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
    """One input as a process gets it, with room for what it writes."""

    def __init__(self, text: str, limit: int):
        self.limit, self.files = limit, contextlib.ExitStack()
        self.fds = [memory_file(self.files, text), *(memory_file(self.files) for _ in range(2))]

    def over(self) -> bool:
        """Tell whether more was written than may be."""
        return os.fstat(self.fds[1]).st_size > self.limit

    def output(self) -> bytes:
        """Return what was written."""
        data = bytearray()
        while piece := os.pread(self.fds[1], self.limit + 1, len(data)):
            data += piece
        return bytes(data)

    def complaint(self) -> bytes:
        """Return the end of what was written as stderr."""
        size = os.fstat(self.fds[2]).st_size
        return os.pread(self.fds[2], STDERR_TAIL, max(0, size - STDERR_TAIL))


def _new_nonce() -> bytes:
    return secrets.token_hex(NONCE // 2).encode() + b" "
