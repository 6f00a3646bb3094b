"""The judge's other side: a clean interpreter from which all processes of candidates are forked.

Run by path, with options as JSON on its command line; standard library only. It sandboxes itself
(isolation.py), imports LiveCodeBench's prelude once, then serves programs that arrive on the
control socket, one at a time. For each it forks a loader (loader.py), which compiles the program
and forks a process for every test. Programs, inputs and outputs pass through as descriptors that
are forwarded unread, so that no process can find another's traces in memory. Expected outputs never
reach this side.

Messages (JSON, one datagram each). In: {"do": "run"} with a job and its descriptors; while it runs,
{"do": "stop"} kills the process of the test, {"do": "count"} asks for CPU time, {"do": "end"} ends
the loader. Out: first {"isolation": ...}; {"limit": ...} before processes are killed for exceeding
it; {"used_s": ...} as the answer to "count"; for each program {"status"} of its loader or
{"error"}, with "last" when the zygote ends after it. End of file on the socket ends the zygote and
everything below it.
"""

import os

# `random` would seed itself in every fork, which costs a tenth of a small test; a verdict should
# not depend on luck anyway. Programs find the original function.
_register_at_fork, os.register_at_fork = os.register_at_fork, lambda **_: None

import _socket
import contextlib
import gc
import json
import select
import struct
import sys

OPTIONS = json.loads(sys.argv[1])
sys.path.append(os.path.abspath(__file__).rsplit(os.sep, 4)[0])
from rlif_jax.execution.sandbox import child, isolation, loader
from rlif_jax.execution.sandbox.libc import SIGKILL
from rlif_jax.execution.sandbox.processes import LIMITS, children, exceeded_limit, used_s

sys.path.pop()
FDS = struct.Struct("2i")  # of a program: its text, and the channel of its loader
ROOM = _socket.CMSG_SPACE(FDS.size)
COUNT_MS = 100  # how often a candidate's processes are counted


def serve(control: _socket.socket, cell, prelude: dict) -> None:
    """Answer until the judge hangs up."""
    while True:
        message, ancillary, _, _ = control.recvmsg(1 << 16, ROOM)
        if not message:
            return
        job = json.loads(message)
        if job["do"] != "run":  # meant for a program that has just ended by itself
            continue
        fds = FDS.unpack(ancillary[0][2])
        try:
            pid = cell.fork_loader()
            if pid == 0:
                control.close()
                loader.load(job, fds, cell, prelude)  # does not return
            for fd in fds:
                os.close(fd)
            reply = {"status": await_loader(control, cell, pid, job)}
        except OSError as error:
            reply = {"error": repr(error)}
        try:
            cell.clean_up()
        except OSError:  # a fresh zygote has a fresh cell
            send_message(control, last=True, **reply)
            return
        send_message(control, **reply)


def await_loader(control: _socket.socket, cell, pid: int, job: dict) -> int:
    """Watch a loader and all below it until it ends; return its status."""
    poll, pidfd, cpu_s = select.poll(), os.pidfd_open(pid), isolation.total_cpu_s(job)
    for fd in (control.fileno(), pidfd):
        poll.register(fd, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll(COUNT_MS)]
        if pidfd in ready or (ready and not handle_request(control, cell, pid)):
            os.kill(pid, SIGKILL)
            os.close(pidfd)
            return os.waitpid(pid, 0)[1]
        if not ready:
            present = children(cell.proc, pid)  # so that no later process is killed
            if found := in_fork(lambda: exceeded_limit(cell.proc, pid, job["memory_bytes"], cpu_s)):
                send_message(control, limit=LIMITS[found])
                kill(present)


def handle_request(control: _socket.socket, cell, pid: int) -> bool:
    """Handle a request of the judge; False when the loader must end."""
    message = control.recv(1 << 16)
    order = json.loads(message)["do"] if message else "end"
    if order == "stop":
        kill(children(cell.proc, pid))
        send_message(control, stopped=True)
    elif order == "count":
        in_fork(lambda: send_message(control, used_s=used_s(cell.proc, pid)))
    return order != "end"


def kill(pids: list[int]) -> None:
    """Kill processes that a loader forked; the loader collects them."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, SIGKILL)


def send_message(control: _socket.socket, **message) -> None:
    control.send(json.dumps(message).encode())


def in_fork(work) -> int:
    """Do work in a process of its own, which ends with its memory; return a small result."""
    pid = os.fork()
    if pid == 0:
        result = 0
        with contextlib.suppress(BaseException):
            result = work()
        os._exit(result or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    control = _socket.socket(fileno=OPTIONS["control"])
    cell, packages, report = isolation.enter_sandbox(OPTIONS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlif_jax"]:
        del sys.modules[name]
    os.environ.clear()
    os.environ |= {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    sys.path.append(packages)
    prelude = child.prepare()
    os.register_at_fork = _register_at_fork
    gc.collect()
    gc.freeze()
    send_message(control, isolation=report)
    serve(control, cell, prelude)


if __name__ == "__main__":
    main()
