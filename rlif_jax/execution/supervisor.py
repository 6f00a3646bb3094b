"""The judge's side of one zygote: start it, give it one test at a time, collect what comes back."""

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

START_S = 120.0  # a loaded machine may take long to start an interpreter
GRACE_S = 60.0  # what a zygote may take to report beyond a test's wall-clock bound
STDERR_TAIL = 4096


class SandboxError(RuntimeError):
    """The judge's own machinery failed, so nothing is known about the program."""


class ZygoteLost(Exception):
    """A zygote ended or stopped answering; `started` tells whether a candidate was running."""

    def __init__(self, reason: str, started: bool):
        super().__init__(reason)
        self.started = started


@dataclass(frozen=True)
class Job:
    """One program on one input. It holds nothing of the expected output."""

    kind: str
    code: str
    input: str
    entry_point: str | None
    cpu_s: float
    wall_s: float
    memory_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class Run:
    """How a child ended. `exit_code` is negative for a signal; `claims` are its (kind, payload)."""

    exit_code: int
    cpu_s: float
    limit: str
    """What it was killed for: "" (it ended by itself), "cpu", "wall", "processes", "judge"."""
    output_limit: bool
    stdout: bytes
    stderr: bytes
    claims: tuple[tuple[str, str], ...]
    foreign: bool
    """The result descriptor also carried bytes that are no claim with this run's nonce."""

    @property
    def started(self) -> bool:
        return self.claims[:1] == (("started", '""'),)

    def claim(self, kind: str) -> str | None:
        """Return the payload of the first claim of that kind, None without one."""
        return next((payload for name, payload in self.claims if name == kind), None)


@dataclass
class _Stream:
    """A pipe that is read to a limit: more is discarded (stderr keeps its end instead)."""

    fd: int
    limit: int
    keep_end: bool = False
    data: bytearray = field(default_factory=bytearray)
    over: bool = False

    def read(self) -> bool:
        """Take what is there; False at the end of the file."""
        while True:
            try:
                piece = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return True
            if not piece:
                return False
            self.data += piece
            if len(self.data) > self.limit:
                self.over = True
                if self.keep_end:
                    del self.data[: -self.limit]
                else:
                    del self.data[self.limit :]
                    return True  # it may never run dry


class Zygote:
    """One zygote process. Only the thread that holds it calls `run`; any thread may `hang_up`."""

    def __init__(self, scratch: Path):
        """Start the process without waiting for it; `scratch` is the folder it works in."""
        self._marker = f"RLIF_JUDGE={secrets.token_hex(16)}"
        name, value = self._marker.split("=")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready = False
        # -I would also ignore PYTHONHASHSEED; -s -P -S and an environment of our own isolate as
        # well, and a fixed seed gives a program the same verdict every time.
        command = [sys.executable, "-s", "-P", "-S", "-X", "utf8"]
        command += [str(Path(__file__).with_name("zygote.py")), str(theirs.fileno())]
        environment = {"PYTHONHASHSEED": "0", name: value}
        if path := os.environ.get("LD_LIBRARY_PATH"):  # the interpreter itself may need it
            environment["LD_LIBRARY_PATH"] = path
        try:
            folder = tempfile.mkdtemp(dir=scratch)
            os.chmod(folder, 0o711)
            self._process = subprocess.Popen(
                [*command, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                cwd=folder,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            self._stderr.close()
            raise SandboxError(f"cannot start {sys.executable}: {error}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, job: Job) -> Run:
        """Run one test and wait for its end.

        Raises ZygoteLost when the zygote ends or falls silent, SandboxError when it could not
        start the child.
        """
        self._wait_until_ready()
        with contextlib.ExitStack() as stack:
            nonce, streams = self._send(job, stack)
            reply = self._collect(job, streams, nonce)
        if "error" in reply:
            raise SandboxError(f"no process for a test: {reply['error']}")
        stdout = streams.get("stdout")
        result = streams["result"]
        claims, foreign = _parse_claims(bytes(result.data), nonce)
        return Run(
            exit_code=os.waitstatus_to_exitcode(reply["status"]),
            cpu_s=reply["cpu_s"],
            limit=reply["limit"],
            output_limit=result.over or (stdout is not None and stdout.over),
            stdout=bytes(stdout.data) if stdout else b"",
            stderr=bytes(streams["stderr"].data),
            claims=claims,
            foreign=foreign,
        )

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        reply = self._receive(time.monotonic() + START_S, started=False)
        self._ready = True
        if reply["reads_judge"]:
            _hide_memory()

    def _receive(self, deadline: float, started: bool) -> dict:
        self._control.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            message = self._control.recv(1 << 16)
        except OSError as error:
            raise ZygoteLost(f"the zygote does not answer: {error!r}", started) from error
        if not message:
            raise ZygoteLost(f"the zygote ended: {self._complaint()}", started)
        return json.loads(message)

    def _complaint(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()[-2000:].decode(errors="replace") or "it said nothing"

    def _send(self, job: Job, stack: contextlib.ExitStack) -> tuple[str, dict[str, _Stream]]:
        """Hand over the job and its descriptors; return the nonce and our ends of the pipes."""
        nonce = secrets.token_hex(16)
        functional = job.kind == "functional"
        limits = {
            "result": (job.output_bytes + 4096, False),
            "stderr": (STDERR_TAIL, True),
            "stdout": (job.output_bytes, False),
        }
        streams: dict[str, _Stream] = {}
        with contextlib.ExitStack() as theirs:
            fds = [_memory_file(job.code, theirs), _memory_file(job.input, theirs)]
            for name, (limit, keep_end) in limits.items():
                if name == "stdout" and functional:  # what a function prints is not looked at
                    fds.append(os.open(os.devnull, os.O_WRONLY))
                    theirs.callback(os.close, fds[-1])
                    continue
                reader, writer = os.pipe()
                stack.callback(os.close, reader)
                theirs.callback(os.close, writer)
                os.set_blocking(reader, False)
                streams[name] = _Stream(reader, limit, keep_end)
                fds.append(writer)
            message = {
                "kind": job.kind,
                "entry_point": job.entry_point,
                "nonce": nonce,
                "cpu_s": job.cpu_s,
                "wall_s": job.wall_s,
                "memory_bytes": job.memory_bytes,
            }
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], fds)
            except OSError as error:
                raise ZygoteLost(f"the zygote ended: {self._complaint()}", False) from error
        return nonce, streams

    def _collect(self, job: Job, streams: dict[str, _Stream], nonce: str) -> dict:
        """Read the pipes until the zygote reports; have a child that writes too much killed."""
        deadline = time.monotonic() + job.wall_s + GRACE_S
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        by_fd = {stream.fd: stream for stream in streams.values()}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        result = streams["result"]
        killed = False
        while (left := deadline - time.monotonic()) > 0:
            ready = [fd for fd, _ in poll.poll(left * 1000)]
            for fd in ready:
                if fd in by_fd and not by_fd[fd].read():
                    poll.unregister(fd)
            if not killed and any(s.over and not s.keep_end for s in by_fd.values()):
                with contextlib.suppress(OSError):
                    self._control.send(b"kill")
                killed = True
            if self._control.fileno() in ready:
                break
        started = result.data.startswith(f"{nonce} started".encode())
        reply = self._receive(deadline, started)
        for stream in by_fd.values():  # every writer is dead by now
            stream.read()
        return reply

    def hang_up(self) -> None:
        """Tell the zygote to kill what runs and to end; a `run` under way raises ZygoteLost."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the zygote and everything below it, whatever state they are in."""
        self.hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10.0)
        self._process.kill()
        self._process.wait()
        self._kill_orphans()
        self._control.close()
        self._stderr.close()

    def _kill_orphans(self) -> None:
        """Kill what a zygote that died has left: processes with its mark in their environment."""
        mark = self._marker.encode()
        found = True
        while found:
            found = False
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit() or int(entry.name) == os.getpid():
                    continue
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        os.kill(int(entry.name), signal.SIGKILL)
                        found = True
            if found:
                time.sleep(0.002)


def _parse_claims(data: bytes, nonce: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    claims = []
    foreign = False
    for line in data.decode(errors="replace").split("\n")[:-1]:
        mark, _, rest = line.partition(" ")
        kind, _, payload = rest.partition(" ")
        if mark == nonce:
            claims.append((kind, payload))
        else:
            foreign = True
    return tuple(claims), foreign or not data.endswith(b"\n")


def _memory_file(text: str, stack: contextlib.ExitStack) -> int:
    """Return a descriptor of an unnamed file that holds `text`, read from its start."""
    fd = os.memfd_create("judge")
    stack.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogatepass"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _hide_memory() -> None:
    """Make this process undumpable, so that programs of the same user cannot read its memory.

    Expected outputs are there. The price, for the rest of the process: no core dump, and a debugger
    needs root. Called only where candidates were seen to be able to open /proc/PID/mem.
    """
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(4, 0, 0, 0, 0) != 0:  # PR_SET_DUMPABLE
        raise SandboxError(f"prctl(PR_SET_DUMPABLE): {os.strerror(ctypes.get_errno())}")
