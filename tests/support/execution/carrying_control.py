"""A judge that lets everything through: under it a real attack moves its bit.

    python carrying_control.py < REQUEST

The request is a JSON list of pairs: a program, and "interpreter" for three tests in one interpreter
or "processes" for three processes one after another, with one folder and the same streams. The
reply is a list of three answers a program. It runs in namespaces of its own, so that this machine
does not feel it, and ends every process that a program left.
"""

import atexit
import builtins
import contextlib
import ctypes
import fcntl
import gc
import io
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

TESTS, LONGEST_S = 3, 30.0
_NONE, _PRIVATE = ctypes.c_ulong(0), 16384 | 1 << 18
_USER, _OTHERS = 0x10000000, 0x20000000 | 0x00020000 | 0x08000000 | 0x04000000
SHARED = mmap.mmap(-1, 4096)  # a place for counters, as some judges have
PLACES = ("/tmp", "/dev/shm", "/var/tmp")


def enter() -> None:
    """Go into user, pid, mount, IPC and UTS namespaces, as the first process there."""
    libc, uid, gid = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(_USER) == 0:
        for name, text in (("setgroups", "deny"), ("uid_map", uid), ("gid_map", gid)):
            Path(f"/proc/self/{name}").write_text(text if text == "deny" else f"0 {text} 1")
    if libc.unshare(_OTHERS) != 0:
        raise OSError(ctypes.get_errno(), "namespaces are refused here")
    if pid := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    libc.mount(b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None)
    attributes = struct.pack("4Q", 1, 0, 0, 0)  # read-only, all of it
    if libc.syscall(442, -100, b"/", 0x8000, attributes, ctypes.c_size_t(32)) != 0:
        raise OSError(ctypes.get_errno(), "the root cannot be made read-only here")
    libc.mount(b"proc", b"/proc", b"proc", _NONE, None)  # else the machine's own stays
    for place in filter(os.path.isdir, PLACES):  # in memory, where inodes are counted
        libc.mount(b"none", place.encode(), b"tmpfs", _NONE, None)


def run(code: str, how: str, base: Path) -> list[str]:
    """Run three tests and return what each printed, with the name of what it raised."""
    folder = base / "above" / "folder"
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=base)) for _ in range(4)]
        pid = os.fork()
        if pid == 0:
            os.setsid()  # whatever is set for a session is set for this one
            if os.fork():
                os.wait()
                os._exit(0)
            with contextlib.suppress(BaseException):
                os.chdir(folder)
                report = os.fdopen(os.dup(files[3].fileno()), "w")
                for fd in range(3):
                    os.dup2(files[fd].fileno(), fd)
                output = os.open("/proc/self/fd/1", os.O_RDONLY)  # with a position of its own
                answers = SHARE[how](code, fcntl.fcntl(output, fcntl.F_DUPFD, 60))
                report.write(json.dumps(answers))
                report.flush()
            os._exit(0)
        end = time.monotonic() + LONGEST_S
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < end:
            time.sleep(0.002)
        sweep()
        files[3].seek(0)
        text = files[3].read().strip(b"\0")  # a program may have moved its position
    shutil.rmtree(base / "above")
    return json.loads(text) if text else ["lost"] * TESTS


def sweep() -> None:
    """End all other processes of the namespace."""
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all but this one, the first of its namespace
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def in_one_interpreter(code: str, output: int) -> list[str]:
    open_streams()
    return [one_test(code, output) for _ in range(TESTS)]


def in_processes(code: str, output: int) -> list[str]:
    answers = []
    for _ in range(TESTS):
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.close(out)
                os.setsid()
                open_streams()
                os.write(into, f"{one_test(code, output)[:9999]}\n".encode())
            os._exit(0)
        os.close(into)
        os.waitpid(pid, 0)
        os.set_blocking(out, False)  # what the program left behind may hold the other end
        answers.append(os.read(out, 1 << 16).decode().strip())
        os.close(out)
    return answers


SHARE = {"interpreter": in_one_interpreter, "processes": in_processes}


def open_streams() -> None:
    for name, fd, mode in (("stdin", 0, "rb"), ("stdout", 1, "wb"), ("stderr", 2, "wb")):
        stream = io.TextIOWrapper(open(fd, mode, closefd=False))  # noqa: SIM115
        setattr(sys, name, stream)


def one_test(code: str, output: int) -> str:
    """Run a program as its own module to its end; return what is new in the output."""
    size, raised = os.fstat(output).st_size, ""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(module).update(__builtins__=builtins)
    try:
        exec(compile(code, "solution.py", "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        raised = f" {type(error).__name__}: {error}"
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.modules.pop("__main__", None)
    del module
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    text = os.pread(output, 1 << 20, size)
    return (text.replace(b"\0", b"").decode(errors="replace") + raised).strip()


def main() -> None:
    requests = json.load(sys.stdin)
    enter()
    reply = os.dup(1)
    base = Path(tempfile.mkdtemp(dir="/tmp"))
    answers = [run(code, how, base) for code, how in requests]
    with os.fdopen(reply, "w") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main()
