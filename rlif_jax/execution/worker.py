"""The judge's side of one zygote: start it, exchange messages, end it."""

import contextlib
import importlib.util
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
from pathlib import Path

from rlif_jax.execution.sandbox.libc import PR_SET_DUMPABLE, prctl

START_S = 120.0  # a busy machine may need long to start an interpreter
PACKAGES = ("numpy", "numpy.libs")  # what programs may import beside the standard library


class SandboxError(RuntimeError):
    """The judge's own machinery failed, so nothing is known about the program."""


class ZygoteLost(Exception):
    """A zygote ended or stopped answering; `running`: a candidate was running."""

    def __init__(self, reason: str, running: bool):
        super().__init__(reason)
        self.running = running


class Worker:
    """A zygote process and the channel to it.

    Only the thread that holds it runs tests; any thread may `disconnect`.
    """

    def __init__(self, scratch: Path, memory_bytes: int):
        """Start the process without waiting for it.

        `scratch` is the folder it works in, `memory_bytes` the memory of its programs.
        """
        self._marker = f"RLIF_JUDGE={secrets.token_hex(16)}"
        name, value = self._marker.split("=")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._isolation: dict[str, str] | None = None
        self.ended = False
        self.pending_ends = 0
        """Loaders that were told to end and whose reply was not read yet."""
        self._limit = ""
        options = {
            "control": theirs.fileno(),
            "judge_pid": os.getpid(),
            "packages": _packages(),
            "memory_bytes": memory_bytes,
        }
        # -I would also ignore PYTHONHASHSEED; -s -P -S and an environment of our own isolate as
        # well, and a fixed seed gives a program the same verdict every time.
        command = [sys.executable, "-s", "-P", "-S", "-X", "utf8"]
        command += [str(Path(__file__).parent / "sandbox" / "zygote.py"), json.dumps(options)]
        # One heap for all threads of a program: more would fill its address space. Symbols are
        # bound at the start, not in every fork anew.
        environment = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1", "LD_BIND_NOW": "1"}
        environment[name] = value
        if path := os.environ.get("LD_LIBRARY_PATH"):  # the interpreter itself may need it
            environment["LD_LIBRARY_PATH"] = path
        try:
            folder = tempfile.mkdtemp(dir=scratch)
            os.chmod(folder, 0o711)
            self._process = subprocess.Popen(
                command,
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

    @property
    def isolation(self) -> dict[str, str]:
        """How candidate programs are sandboxed, as the zygote reports; waits for the report.

        Raises ZygoteLost when the zygote ends before it.
        """
        if self._isolation is None:
            self._isolation = self.receive("isolation", time.monotonic() + START_S)
            if self._isolation.pop("reads_judge", ""):
                _hide_memory()
        return self._isolation

    def send(self, message: dict, fds: list[int] | None = None) -> None:
        """Send one message; raises ZygoteLost when the zygote has ended."""
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], fds or [])
        except OSError as error:
            running = message["do"] == "end"
            raise ZygoteLost(f"the sandbox process ended: {self.stderr_tail()}", running) from error

    def receive(self, key: str, deadline: float) -> str | int | float | bool:
        """Wait for a message with `key` and return its value; handle the others.

        Raises ZygoteLost when the zygote ends or does not answer, SandboxError when it could not
        start a process or has lost it.
        """
        while True:
            reply = self._next(deadline, running=key != "isolation")
            if key in reply and not self.pending_ends:
                return reply[key]
            self._handle_reply(reply)

    def limit(self) -> str:
        """Return the limit for which the zygote killed the process that ended; "" for none."""
        while select.select([self._control], [], [], 0)[0]:
            self._handle_reply(self._next(time.monotonic() + 1, running=True))
        limit, self._limit = self._limit, ""
        return limit

    def read_pending(self) -> None:
        """Read the pending replies of earlier loaders, except the last."""
        while self.pending_ends > 1:
            self._handle_reply(self._next(time.monotonic() + START_S, running=False))

    def _handle_reply(self, reply: dict) -> None:
        if self.pending_ends:  # from an earlier program, which nobody waits for
            self.pending_ends -= "status" in reply or "error" in reply
        elif "error" in reply:
            raise SandboxError(f"could not start a process for a test: {reply['error']}")
        elif "status" in reply:
            status, said = reply["status"], self.stderr_tail()
            raise SandboxError(f"a loader process ended with {status}: {said}")
        self._limit = "" if self.pending_ends else reply.get("limit", "")

    def _next(self, deadline: float, running: bool) -> dict:
        self._control.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            message = self._control.recv(1 << 16)
        except OSError as error:
            raise ZygoteLost(f"the sandbox process does not answer: {error!r}", running) from error
        if not message:
            raise ZygoteLost(f"the sandbox process ended: {self.stderr_tail()}", running)
        reply = json.loads(message)
        self.ended |= reply.get("last", False)
        return reply

    def stderr_tail(self) -> str:
        """Return the last part of the stderr of the zygote and its loaders."""
        self._stderr.seek(0)
        return self._stderr.read()[-2000:].decode(errors="replace") or "it wrote nothing to stderr"

    def disconnect(self) -> None:
        """Make the zygote kill what runs and end; a running test raises ZygoteLost."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the zygote and everything below it, whatever state they are in."""
        self.disconnect()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10.0)
        self._process.kill()
        self._process.wait()
        self._kill_orphans()
        self._control.close()
        self._stderr.close()

    def _kill_orphans(self) -> None:
        """Kill what a dead zygote left behind: processes with its mark in their environment."""
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


def _packages() -> list[str]:
    """Return the folders of the packages that programs may import, as installed here."""
    spec = importlib.util.find_spec(PACKAGES[0])
    if spec is None or spec.origin is None:
        return []
    beside = Path(spec.origin).resolve().parent.parent
    return [str(beside / name) for name in PACKAGES if (beside / name).is_dir()]


def _hide_memory() -> None:
    """Make this process undumpable, so that programs of the same user cannot read its memory.

    Expected outputs are there. The price, for the rest of the process: no core dump, and a debugger
    needs root. Called only where a candidate could open /proc/PID/mem.
    """
    try:
        prctl(PR_SET_DUMPABLE, 0)
    except OSError as error:
        raise SandboxError(f"prctl(PR_SET_DUMPABLE): {error}") from error
