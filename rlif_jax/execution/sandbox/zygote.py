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
everything below it. The judge has the clock; the zygote counts what all of a candidate's processes
use together.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import time

OPTIONS = json.loads(sys.argv[1])
sys.path.append(os.path.abspath(__file__).rsplit(os.sep, 4)[0])
from rlif_jax.execution.sandbox import child, isolation

if OPTIONS["reads"]:  # only then, since every fork pays for what its zygote has imported
    from rlif_jax.execution.sandbox import carry_over

sys.path.pop()

COUNT_S = 0.1  # how often a candidate's processes are counted
PAGE_BYTES = resource.getpagesize()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def serve(control: socket.socket, cell: dict):
    """Answer jobs until the judge hangs up; in a forked child, return (job, fds)."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.utime(folder, (0, 0))
    fresh = folder_state(folder)
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
        try:
            if folder_state(folder) != fresh:
                clear_folder(folder)
                fresh = folder_state(folder)
        except (OSError, RecursionError):  # a fresh zygote has a fresh folder
            reply["last"] = True
        control.send(json.dumps(reply).encode())
        if "last" in reply:
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
            limit = excess(job["memory_bytes"], job["calls"] * job["cpu_s"])
            # on a machine with many processes counting is slow: at most a twentieth of the time
            next_count = now + max(COUNT_S, 20 * (time.monotonic() - now))
    if pidfd is not None:
        os.close(pidfd)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    usages = [usage, *sweep(job["alone"])]
    if not limit and job["threads"] and peak_bytes(usages) > job["memory_bytes"]:
        limit = "memory"  # for less than the time between two counts
    used_s = sum(u.ru_utime + u.ru_stime for u in usages)
    return {"status": status, "cpu_s": used_s, "limit": limit}


def excess(memory_bytes: int, cpu_s: float) -> str:
    """Say what all processes of the candidate together have too much of, "" for nothing.

    RLIMIT_NPROC does not bind root and may count a user's other processes; RLIMIT_AS and RLIMIT_CPU
    count each process alone, the former with room for the stacks of threads. A fork shares most of
    its memory with the zygote, which is not counted.
    """
    living = descendants()
    if len(living) > isolation.PROCESSES:
        return "processes"
    if sum(living.values()) > cpu_s:
        return "cpu"
    shared = resident("self")
    if sum(max(0, resident(pid) - shared) for pid in living) > memory_bytes:
        return "memory"
    return ""


def peak_bytes(usages: list[resource.struct_rusage]) -> int:
    """Return the most memory that one of these processes has had in use."""
    return max(usage.ru_maxrss for usage in usages) << 10


def resident(pid: int | str) -> int:
    """Return the bytes of a process in memory, 0 when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES
    return 0


def sweep(alone: bool) -> list[resource.struct_rusage]:
    """Kill and reap every process that is left below this one; return what each has used.

    `alone` says that this is the first process of a pid namespace, which can kill all others at
    once. Elsewhere they are stopped first and killed when all are, so that a fork bomb cannot
    outrun the killing.
    """
    usages = []
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return usages
        if pid:
            usages.append(usage)
            continue
        if alone:
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)
            time.sleep(0.0002)
            continue
        stopped: set[int] = set()
        while fresh := descendants().keys() - stopped:
            signal_all(fresh, signal.SIGSTOP)
            stopped |= fresh
        signal_all(stopped, signal.SIGKILL)
        time.sleep(0.001)


def signal_all(pids: set[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)


def descendants() -> dict[int, float]:
    """Return the living processes below this one, with their CPU seconds and their children's."""
    children: dict[int, list[int]] = {}
    cpu_s: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                if fields[0] not in b"ZX":
                    children.setdefault(int(fields[1]), []).append(int(entry))
                    cpu_s[int(entry)] = sum(map(int, fields[11:15])) / TICKS_PER_S
    found: dict[int, float] = {}
    todo = [os.getpid()]
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in found]
        found |= {pid: cpu_s[pid] for pid in new}
        todo += new
    return found


def folder_state(folder: int) -> tuple:
    """Return what differs when a program has left anything in the working folder, or on it."""
    os.fchmod(folder, 0o700)
    seen = os.fstat(folder)
    return os.listdir(folder), seen.st_mtime_ns, seen.st_ctime_ns


def clear_folder(folder: int) -> None:
    """Empty the working folder and reset its own attributes; raises OSError when it resists."""
    import shutil  # rarely needed, and a fork pays for every module

    for name in os.listdir(folder):
        path = os.fsencode(name)
        if not stat.S_ISDIR(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(path, dir_fd=folder)
            continue
        with contextlib.suppress(OSError):  # the program took permissions away; nothing of it runs
            os.chmod(path, 0o700)
            for base, names, _ in os.walk(path):
                for inner in (os.path.join(base, inner) for inner in names):
                    if not os.path.islink(inner):
                        os.chmod(inner, 0o700)
        shutil.rmtree(path)
    os.utime(folder, (0, 0))


def read_programs(control: socket.socket, report: dict) -> None:
    """Answer for each program whether it can carry anything over; nothing is run here."""
    carry_over.learn_library()
    control.send(json.dumps({"isolation": report}).encode())
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 8)
        if not message:
            return
        code = os.pread(fds[0], os.fstat(fds[0]).st_size, 0).decode("utf-8", "surrogatepass")
        os.close(fds[0])
        control.send(json.dumps({"again": carry_over.carries_nothing_over(code)}).encode())


def main() -> None:
    control = socket.socket(fileno=OPTIONS["control"])
    cell, report = isolation.shut_in(OPTIONS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlif_jax"]:
        del sys.modules[name]
    if OPTIONS["reads"]:
        read_programs(control, report)
        return
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
