"""The process that stands between the zygote and the tests of one program.

It compiles the program once and forks a process for each test, or for a function, whenever the
judge asks for one; it limits that process, collects it and all that it leaves behind, and reports
what the kernel says of them. It runs nothing of the program.

What it learns of one test must not reach the next through the memory that both are forked from.
So no status and no usage ever becomes a Python object here: they pass from the kernel to the judge
in two buffers that are wiped, and what has to be computed on the way is left to a fork.
Standard library only.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket

from rlif_jax.execution.sandbox import asserts, child, isolation, processes
from rlif_jax.execution.sandbox.libc import libc
from rlif_jax.execution.sandbox.preamble import NOT_COMPILED
from rlif_jax.execution.sandbox.terms import (
    BY_ORDER,
    COMPILED,
    COUNT,
    COUNTED,
    LEFT_BEHIND,
    LIMITS,
    RUN,
    STARTED,
    SYNTAX,
)

COUNT_MS = 100  # how often a candidate's processes are counted
WAITED_BYTES = 8 + 144  # a status, padding, a struct rusage
OWN, OTHERS = (ctypes.create_string_buffer(WAITED_BYTES) for _ in range(2))


def load(job: dict, fds: list[int], cell) -> tuple:
    """Compile the program, then fork processes until the judge is gone.

    Returns only in a fork: (job, descriptors, preamble, program).
    """
    code_fd, channel_fd = fds
    channel = socket.socket(fileno=channel_fd)
    text = os.pread(code_fd, os.fstat(code_fd).st_size, 0).decode("utf-8", "surrogatepass")
    preamble, code = text[: job["preamble"]], text[job["preamble"] :]
    os.setsid()
    isolation.limit_memory(job["memory_bytes"], job["threads"])
    cell.enter()
    cell.renew()
    channel.send(STARTED)
    complaints = os.dup(2)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)  # where the compiler warns
    try:
        if job["kind"] == "test":
            program = asserts.compile_source(code, job["all_assertions"])
        else:
            program = child.compile_program(code, job["kind"])
    except NOT_COMPILED as error:
        channel.send(SYNTAX + ascii(str(error))[1:-1][:300].encode())
        os._exit(0)
    os.dup2(complaints, 2)
    gc.freeze()
    channel.send(COMPILED)
    while True:
        order, fds, _, _ = socket.recv_fds(channel, 64, 4)
        if not order:
            os._exit(0)
        if order != RUN:  # for a process that had just ended by itself
            continue
        pid = os.fork()
        if pid == 0:
            channel.close()
            return job, fds, preamble, program
        for fd in fds:
            os.close(fd)
        limit = await_end(pid, channel, job)
        collect(pid, channel, cell, limit)
        cell.renew()


def ended_or_readable(pid: int, channel: socket.socket, wait_ms: int | None = None) -> list[int]:
    """Wait until a child has ended or the channel can be read; tell which by its descriptor.

    A child's is a pidfd, which is closed here, or -1 where the kernel or a container has none.
    Returns [] when `wait_ms` have passed.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # look every few milliseconds
        for _ in range(1 << 62 if wait_ms is None else wait_ms // 3):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return [-1]
            if ready := poll.poll(3):
                return [fd for fd, _ in ready]
        return []
    try:
        poll.register(pidfd, select.POLLIN)
        return [fd for fd, _ in poll.poll(wait_ms)]
    finally:
        os.close(pidfd)


def await_end(pid: int, channel: socket.socket, job: dict) -> bytes:
    """Wait until a process ends, takes too much, or is to end; say which."""
    cpu_s = job["calls"] * job["cpu_s"]
    while True:
        ready = ended_or_readable(pid, channel, COUNT_MS)
        if not ready:
            if found := in_a_fork(lambda: processes.excess(job["memory_bytes"], cpu_s)):
                return LIMITS[found]
        elif channel.fileno() not in ready:
            return LIMITS[processes.WITHIN]
        elif channel.recv(64) != COUNT:  # an order to end it, or nothing: the judge is gone
            return BY_ORDER
        else:
            in_a_fork(lambda: channel.send(COUNTED + b"%f" % processes.used_below(pid)))


def collect(pid: int, channel: socket.socket, cell, limit: bytes) -> None:
    """Kill and reap a process and all that it left behind; tell the judge what each has used."""
    os.kill(pid, signal.SIGKILL)
    wait(pid, OWN)
    flags = os.WNOHANG
    while (left := wait(-1, OTHERS, flags)) >= 0:
        if left:
            channel.sendmsg([LEFT_BEHIND, OTHERS])
        else:
            cell.kill_all()
            flags = 0
    channel.sendmsg([limit, OWN])
    for waited in (OWN, OTHERS):
        ctypes.memset(waited, 0, WAITED_BYTES)


def wait(pid: int, waited, flags: int = 0) -> int:
    """Call wait4, which fills in `waited`; return what it returns."""
    return libc().wait4(pid, waited, flags, ctypes.byref(waited, 8))


def in_a_fork(work) -> int:
    """Do something in a process of its own, whose memory goes with it; return its small result."""
    pid = os.fork()
    if pid == 0:
        result = 0
        with contextlib.suppress(BaseException):
            result = work()
        os._exit(result or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
