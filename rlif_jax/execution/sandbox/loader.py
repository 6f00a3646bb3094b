"""The process that stands between the zygote and the tests of one program.

It compiles the program once and forks a process for each test, or for a function, whenever the
judge requests one. It collects that process and all that it leaves behind, and forwards the
kernel's account of them. It runs nothing of the program; the zygote watches the time.

Nothing about one test may reach the next through the memory that both are forked from. So no status
and no usage ever becomes a Python object here: they pass from the kernel to the judge in two
buffers that are wiped. Each page that the loader touches between two forks is copied, so it does
little, by system calls whose arguments are prepared. Standard library only.
"""

import _socket
import ctypes
import gc
import os
import struct
import time

from rlif_jax.execution.sandbox import asserts, child, isolation
from rlif_jax.execution.sandbox.libc import wait4
from rlif_jax.execution.sandbox.preamble import NOT_COMPILED
from rlif_jax.execution.sandbox.protocol import COMPILED, ENDED, LEFT_BEHIND, RUN, STARTED, SYNTAX

STREAMS, CHANNEL = struct.Struct("3i"), struct.Struct("2i")  # the descriptors of an order
WNOHANG = os.WNOHANG
WAITED_BYTES = 8 + 144  # a status, padding, a struct rusage


def load(job: dict, fds: list[int], cell, prelude: dict) -> None:
    """Compile the program, then fork processes until the judge is gone; never returns."""
    code_fd, channel_fd = fds
    channel = _socket.socket(fileno=channel_fd)
    text = os.pread(code_fd, os.fstat(code_fd).st_size, 0).decode("utf-8", "surrogatepass")
    os.close(code_fd)
    preamble, code = text[: job["preamble"]], text[job["preamble"] :]
    os.setsid()
    isolation.limit_program(job)
    cell.enter()
    channel.send(STARTED)
    stderr = os.dup(2)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)  # hides the compiler's warnings
    try:
        if job["kind"] == "test":
            program = asserts.compile_source(code, job["all_assertions"])
        else:
            program = child.compile_program(code, job["kind"])
    except NOT_COMPILED as error:
        channel.send(SYNTAX + ascii(str(error))[1:-1][:300].encode())
        os._exit(0)
    os.dup2(stderr, 2)
    channel.send(COMPILED)
    if job["kind"] == "stdin":
        run = child.whole_program(job, program, cell, prelude)
        fork_tests(channel, STREAMS, cell, run, rehearsals=1)
    run = child.function(job, preamble, program, cell, prelude)
    fork_tests(channel, CHANNEL, cell, run, rehearsals=0)  # it forks once, rarely more


def fork_tests(channel: _socket.socket, order: struct.Struct, cell, run, rehearsals: int) -> None:
    """Fork a process at every request; it gets the descriptors that came with the request."""
    reset, room, unpack = cell.make_reset(), _socket.CMSG_SPACE(order.size), order.unpack
    close, memset = os.close, ctypes.memset
    own, others = (ctypes.create_string_buffer(WAITED_BYTES) for _ in range(2))
    own_usage, others_usage = ctypes.byref(own, 8), ctypes.byref(others, 8)

    def run_one_test(receive, send, fork) -> None:
        reset()
        message, ancillary, _, _ = receive(1, room)
        if not message:
            os._exit(0)
        fds = unpack(ancillary[0][2])
        pid = fork()
        if pid == 0:
            run(fds)  # does not return: that would touch the objects of this function
        for fd in fds:
            close(fd)
        wait4(pid, own, 0, own_usage)
        while (left := wait4(-1, others, WNOHANG, others_usage)) >= 0:
            if left:
                send((LEFT_BEHIND, others))
                memset(others, 0, WAITED_BYTES)
            else:
                cell.kill_all()
                time.sleep(0.0005)
        send((ENDED, own))
        memset(own, 0, WAITED_BYTES)

    gc.freeze()
    for _ in range(rehearsals):
        rehearse(run_one_test, order)
    while True:
        run_one_test(channel.recvmsg, channel.sendmsg, os.fork)


def rehearse(run_one_test, order: struct.Struct) -> None:
    """Run one turn without a fork, so that the first test finds memory as later ones do."""
    judge, loader = _socket.socketpair()
    fds = order.pack(*(0 for _ in range(order.size // 4)))
    judge.sendmsg([RUN], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
    run_one_test(loader.recvmsg, loader.sendmsg, lambda: -1)
    judge.close()
    loader.close()
