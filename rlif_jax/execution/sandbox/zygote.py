"""The judge's other side: a clean interpreter from which all processes of candidates are forked.

Run by path, with options as JSON on its command line; standard library only. It sandboxes itself
(isolation.py), imports LiveCodeBench's prelude once, then serves programs that arrive on the
control socket, one at a time. For each it forks a loader (loader.py), which compiles the program
and forks a process for every test. Programs, inputs and outputs pass both by as descriptors that
are handed on unread, so that no process can find another's traces in memory; expected outputs never
reach this side.

Messages (JSON, one datagram each). In: {"do": "run"} with a job and its descriptors; {"do": "end"}.
Out: first {"isolation": ...}, then for each program {"status"} of its loader or {"error"}, with
"last" when the zygote ends after it. End of file on the socket ends the zygote and everything below
it.
"""

import os

# `random` would seed itself in every fork, which costs a tenth of a small test; a verdict should
# not depend on luck anyway. Programs find the function as it is.
_register_at_fork, os.register_at_fork = os.register_at_fork, lambda **_: None

import gc
import json
import signal
import socket
import sys

OPTIONS = json.loads(sys.argv[1])
sys.path.append(os.path.abspath(__file__).rsplit(os.sep, 4)[0])
from rlif_jax.execution.sandbox import child, isolation, loader

sys.path.pop()


def serve(control: socket.socket, cell):
    """Answer until the judge hangs up; in a forked loader, return (job, fds)."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 8)
        if not message:
            return None
        job = json.loads(message)
        if job["do"] != "run":  # for a program that had just ended by itself
            continue
        try:
            pid = cell.fork_loader()
            if pid == 0:
                control.close()
                return job, fds
            for fd in fds:
                os.close(fd)
            reply = {"status": await_loader(control, pid)}
        except OSError as error:
            reply = {"error": repr(error)}
        try:
            cell.leave()
        except OSError:  # a fresh zygote has a fresh cell
            reply["last"] = True
        control.send(json.dumps(reply).encode())
        if "last" in reply:
            return None


def await_loader(control: socket.socket, pid: int) -> int:
    """Wait until a loader ends, end it when the judge says so or is gone; return its status."""
    while True:
        for fd in loader.ended_or_readable(pid, control):
            if fd == control.fileno():
                control.recv(1 << 16)
            os.kill(pid, signal.SIGKILL)  # a loader that has ended waits to be collected
            return os.waitpid(pid, 0)[1]


def main() -> None:
    control = socket.socket(fileno=OPTIONS["control"])
    cell, packages, report = isolation.shut_in(OPTIONS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlif_jax"]:
        del sys.modules[name]
    os.environ.clear()
    os.environ |= {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    sys.path.append(packages)
    prelude = child.prepare()
    os.register_at_fork = _register_at_fork
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"isolation": report}).encode())
    forked = serve(control, cell)
    if forked is None:
        return
    test = loader.load(*forked, cell)
    child.run(*test, cell, prelude)


if __name__ == "__main__":
    main()
