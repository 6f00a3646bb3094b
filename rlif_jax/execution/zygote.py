"""The judge's other side: a clean interpreter that forks a process for every test.

Run by path, with options as JSON on its command line; standard library only. It shuts itself in
(isolation.py), imports LiveCodeBench's prelude once, then serves jobs that arrive on the control
socket, one at a time. Programs, inputs and outputs pass it by as descriptors that it hands to the
fork without reading them, so that no fork can find another program's traces in memory; expected
outputs never reach this side. When a program has ended, the zygote kills whatever is left of it,
empties its folder, and answers how it ended.

Messages (JSON, one datagram each). In: {"do": "run"} with a job and its descriptors; {"do": "end"}
while a child runs. Out: first {"isolation": ...}, then for each job {"status", "cpu_s", "limit"} or
{"error"}, with "last" when the zygote ends after it. End of file on the socket ends the zygote and
everything below it. The judge has the clock; the zygote counts processes and memory.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from rlif_jax.execution import child, isolation

sys.path.pop()

COUNT_S = 0.1  # how often a candidate's processes are counted
PAGE_BYTES = resource.getpagesize()


def serve(control: socket.socket, cell: dict):
    """Answer jobs until the judge hangs up; in a forked child, return (job, fds)."""
    fresh = folder_state()
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 8)
        if not message:
            return None
        job = json.loads(message)
        if job["do"] != "run":  # for a program that had just ended by itself
            continue
        job |= cell
        try:
            pid = os.fork()
            if pid == 0:
                control.close()
                return job, fds
            for fd in fds:
                os.close(fd)
            reply = supervise(control, pid, job)
        except OSError as error:
            reply = {"error": repr(error)}
        reply["last"] = folder_state() != fresh and not clear_folder()
        fresh = folder_state()
        control.send(json.dumps(reply).encode())
        if reply["last"]:  # a fresh zygote has a fresh folder
            return None


def supervise(control: socket.socket, pid: int, job: dict) -> dict:
    """Wait for the child's end, have it if it takes too much, and leave no process behind it."""
    next_count = time.monotonic() + COUNT_S
    poll = select.poll()
    poll.register(control, select.POLLIN)
    wait_s, pidfd = COUNT_S, None
    try:
        pidfd = os.pidfd_open(pid)
        poll.register(pidfd, select.POLLIN)
    except OSError:  # a kernel or a container without pidfd_open: look every few milliseconds
        wait_s = 0.003
    limit = ""
    while not limit and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if control.fileno() in [fd for fd, _ in poll.poll(wait_s * 1000)]:
            control.recv(1 << 16)  # an order to end it, or nothing: the judge is gone
            limit = "judge"
        elif (now := time.monotonic()) >= next_count:
            limit = excess(job["memory_bytes"])
            # on a machine with many processes counting is slow: at most a twentieth of the time
            next_count = now + max(COUNT_S, 20 * (time.monotonic() - now))
    if pidfd is not None:
        os.close(pidfd)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    used_s = usage.ru_utime + usage.ru_stime + sweep(job["alone"])
    return {"status": status, "cpu_s": used_s, "limit": limit}


def excess(memory_bytes: int) -> str:
    """Say what all processes of the candidate together have too much of, "" for nothing.

    RLIMIT_NPROC does not bind root and may count a user's other processes; RLIMIT_AS counts each
    process alone. A fork shares most of its memory with the zygote, which is not counted.
    """
    pids = descendants()
    if len(pids) > isolation.PROCESSES:
        return "processes"
    shared = resident("self")
    if sum(max(0, resident(pid) - shared) for pid in pids) > memory_bytes:
        return "memory"
    return ""


def resident(pid: int | str) -> int:
    """Return the bytes of a process in memory, 0 when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES
    return 0


def sweep(alone: bool) -> float:
    """Kill and reap every process that is left below this one; return the CPU seconds they used.

    `alone` says that this is the first process of a pid namespace, which can kill all others at
    once. Elsewhere they are stopped first and killed when all are, so that a fork bomb cannot
    outrun the killing.
    """
    cpu_s = 0.0
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu_s
        if pid:
            cpu_s += usage.ru_utime + usage.ru_stime
            continue
        if alone:
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)
            time.sleep(0.0002)
            continue
        stopped: set[int] = set()
        while fresh := descendants() - stopped:
            signal_all(fresh, signal.SIGSTOP)
            stopped |= fresh
        signal_all(stopped, signal.SIGKILL)
        time.sleep(0.001)


def signal_all(pids: set[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)


def descendants() -> set[int]:
    """Return the living processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in b"ZX":
                    children.setdefault(int(parent), []).append(int(entry))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in found]
        found.update(new)
        todo += new
    return found


def folder_state() -> tuple:
    """Return what differs when a program has left anything in the working folder, or on it."""
    seen = os.stat(".")
    return os.listdir("."), seen.st_mode, seen.st_mtime_ns, seen.st_ctime_ns


def clear_folder() -> bool:
    """Empty the working folder and reset its own attributes; False when something resists."""
    import shutil  # rarely needed, and a fork pays for every module

    with contextlib.suppress(OSError):
        os.chmod(".", 0o700)
        for name in os.listdir("."):
            if os.path.isdir(name) and not os.path.islink(name):
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)
            if not os.path.lexists(name):
                continue
            os.chmod(name, 0o700)  # the program took permissions away; nothing of it runs
            for base, names, _ in os.walk(name):
                for path in (os.path.join(base, inner) for inner in names):
                    if not os.path.islink(path):
                        os.chmod(path, 0o700)
            shutil.rmtree(name, ignore_errors=True)
        os.utime(".", (0, 0))
    return not os.listdir(".")


def main() -> None:
    options = json.loads(sys.argv[1])
    control = socket.socket(fileno=options["control"])
    cell, report = isolation.shut_in(options)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlif_jax"]:
        del sys.modules[name]
    os.environ.clear()
    os.environ |= {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    sys.path.append(cell["packages"])
    prelude = child.prepare()
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"isolation": report}).encode())
    forked = serve(control, cell)
    if forked is not None:
        child.run(*forked, prelude)


if __name__ == "__main__":
    main()
