"""The judge's side of one program: give it one input after another, collect what becomes of it."""

import contextlib
import os
import secrets
import signal
from dataclasses import dataclass

from rlif_jax.execution.process import Job, Left, Process, memory_file
from rlif_jax.execution.sandbox.terms import NONCE
from rlif_jax.execution.worker import Worker


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

    A process that answers more than one input does so with lines `NONCE KIND JSON`. An input's
    nonce comes with the input, so that it cannot be answered ahead of time. A process that has
    ended is replaced for the next input.
    """

    def __init__(self, worker: Worker, job: Job):
        """Raises ZygoteLost or SandboxError when the worker cannot be had."""
        self._worker, self._job = worker, job
        _ = worker.isolation  # waits until it can take a job
        self._stack = contextlib.ExitStack()
        self._code = memory_file(self._stack, job.preamble + job.code)
        self._process: Process | None = None
        self._ahead: _Input | None = None

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._stack:
            self.end()

    def end(self) -> None:
        """End the process that waits for an input, if there is one; raises ZygoteLost."""
        self._drop_ahead()
        if self._process is not None:
            process, self._process = self._process, None
            process.end()

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.files.close()
            self._ahead = None

    def prepare(self) -> None:
        """Have the process of a function made, while there is something else to do."""
        if self._process is None:
            self._process = Process(self._worker, self._job, self._code, [])

    def test(self, text: str, output_bytes: int, following: str | None = None) -> Run:
        """Run the program on one input, or call its function with the arguments in `text`.

        `following` is the next input, if any: a program that cannot look may be handed it early.
        Raises ZygoteLost or SandboxError when the machinery fails.
        """
        if self._job.kind == "functional":
            return self.ask(text, output_bytes)
        given = self._ahead or _Input(text)
        fresh, sent = self._process is None, self._ahead is not None
        self._ahead = None
        with given.files:
            if self._process is None:
                self._process = Process(self._worker, self._job, self._code, given.streams)
            if self._job.again:
                if not sent:
                    self._process.say(given.nonce, [] if fresh else given.streams)
                if following is not None:
                    self._ahead = _Input(following)
                    self._process.say(self._ahead.nonce, self._ahead.streams)
            before_s = self._process.used_s
            line = self._process.hear(1024)
            run = self._run(given.nonce, line, fresh, before_s, output_bytes)
            written = os.fstat(given.streams[1]).st_size
            over = written > output_bytes
            output = b"" if over else _contents(given.streams[1], written)
        found = {"output_limit": output_bytes if over else 0, "stdout": output}
        if self._ahead is not None:  # its limit was kept; what it has used since is the next one's
            found["cpu_s"] = 0.0
        return Run(**vars(run) | found)

    def ask(self, text: str, output_bytes: int, left: Left | None = None) -> Run:
        """Say one thing to a process that answers on its channel, and hear what it says to that.

        `left` is the time for it where that is not what the job says. Raises ZygoteLost or
        SandboxError when the machinery fails.
        """
        self.prepare()
        assert self._process is not None
        fresh = not self._process.started
        early = not fresh and self._process.spoke_unasked()
        nonce, data = _new_nonce(), text.encode("utf-8", "surrogatepass")
        self._process.say(b"%s%d\n%s" % (nonce, len(data), data), [])
        before_s = self._process.used_s
        line = self._process.hear(output_bytes + 4096, left)
        more = line is not None and self._process.said_more
        return self._run(nonce, line, fresh, before_s, output_bytes, foreign=early or more)

    def _run(
        self,
        nonce: bytes,
        line: bytes | None,
        fresh: bool,
        before_s: float,
        output_bytes: int,
        foreign: bool = False,
    ) -> Run:
        """Put together what the process said and, unless it waits for more, how it ended."""
        process, claim = self._process, None
        assert process is not None
        if line is not None and not line.startswith(nonce):
            foreign = True
        elif line is not None and not foreign:
            kind, _, payload = line[len(nonce) :].decode(errors="replace").partition(" ")
            claim = (kind, payload)
        over = output_bytes if process.over else 0
        found = {"fresh": fresh, "claim": claim, "foreign": foreign, "output_limit": over}
        if claim and process.ending is None:
            return Run(cpu_s=process.used_s - before_s, **found)
        self._drop_ahead()
        self._process = None
        ending = process.wait()
        return Run(
            cpu_s=ending["cpu_s"] - before_s,
            exit_code=None if claim else os.waitstatus_to_exitcode(ending["status"]),
            limit="" if claim else process.limit or ending["limit"],
            started=process.started,
            syntax_error=process.syntax_error,
            stderr=ending["stderr"],
            **found,
        )


class _Input:
    """One input as a process gets it: streams to read and to write, and a nonce."""

    def __init__(self, text: str):
        self.files = contextlib.ExitStack()
        self.streams = [memory_file(self.files, text), memory_file(self.files)]
        self.nonce = _new_nonce()


def _new_nonce() -> bytes:
    return secrets.token_hex(NONCE // 2).encode() + b" "


def _contents(fd: int, size: int) -> bytes:
    data = bytearray()
    while piece := os.pread(fd, size - len(data), len(data)):
        data += piece
    return bytes(data)
