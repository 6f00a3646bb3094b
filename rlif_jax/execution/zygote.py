"""The judge's other side: a clean interpreter that forks one process for every test.

Run by path as `python -s -P -S -X utf8 zygote.py CONTROL_FD JUDGE_PID`; standard library only. It
imports LiveCodeBench's prelude once, then serves jobs that arrive on the control socket, one at a
time. A job holds a program, one test's input and limits; expected outputs never reach this side.
For each job it forks a child, waits for it or kills it, kills whatever the child left running,
removes its working folder, and answers how the child ended.

Messages (JSON, one datagram each): in, a job with its descriptors attached, or b"kill"; out, first
{"uid", "reads_judge"}, then per job {"status", "cpu_s", "limit"} or {"error"}. End of file on
the socket ends the zygote and everything below it.
"""

import contextlib
import gc
import importlib.util
import json
import os
import select
import shutil
import signal
import site
import socket
import sys
import time
import types

PROCESSES = 64  # of a candidate
COUNT_S = 0.1  # how often they are counted


def serve(control: socket.socket, judge_pid: int, child: types.ModuleType):
    """Answer jobs until the judge hangs up; in a forked child, return its (job, fds, uid)."""
    child.prctl(
        child.PR_SET_CHILD_SUBREAPER, 1
    )  # orphans become children of the zygote, which kills them
    child.prctl(child.PR_SET_NO_NEW_PRIVS, 1)
    child.prctl(child.PR_SET_DUMPABLE, 0)  # candidates of the same user cannot look in or trace
    uid, reads_judge = choose_uid(judge_pid, child)
    control.send(json.dumps({"uid": uid, "reads_judge": reads_judge}).encode())
    processes = PROCESSES if uid else PROCESSES + tasks_of_user()
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 8)
        if not message:
            return None
        if message == b"kill":  # for a test that has just ended by itself
            continue
        job = json.loads(message)
        job["processes"] = processes
        try:
            os.mkdir("work", 0o700)
            pid = os.fork()
            if pid == 0:
                control.close()
                return job, fds, uid
            reply = supervise(control, pid, job["cpu_s"], job["wall_s"])
        except OSError as error:
            reply = {"error": repr(error)}
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(OSError):  # if it stays in the way, the next mkdir fails
            remove_folder()
        control.send(json.dumps(reply).encode())


def supervise(control: socket.socket, pid: int, cpu_s: float, wall_s: float) -> dict:
    """Wait for the child, to its limits or until told to kill; leave no process behind it."""
    end = time.monotonic() + wall_s
    next_count = time.monotonic() + COUNT_S
    poll = select.poll()
    poll.register(control, select.POLLIN)
    longest_s, pidfd = COUNT_S, None
    try:
        pidfd = os.pidfd_open(pid)
        poll.register(pidfd, select.POLLIN)
    except OSError:  # a kernel or a container without pidfd_open: look every few milliseconds
        longest_s = 0.003
    limit = ""
    while not limit and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        wall_left_s = end - time.monotonic()
        cpu_left_s = cpu_s - cpu_used(pid)
        if wall_left_s <= 0 or cpu_left_s <= 0:
            limit = "wall" if wall_left_s <= 0 else "cpu"
            break
        wait_s = min(longest_s, wall_left_s, cpu_left_s) + 0.001
        if control.fileno() in [fd for fd, _ in poll.poll(wait_s * 1000)]:
            limit = "judge"
        elif (now := time.monotonic()) >= next_count:
            # RLIMIT_NPROC does not bind root, and counts a user's other processes.
            limit = "processes" if len(descendants()) > PROCESSES else ""
            # on a machine with many processes counting is slow: at most a twentieth of the time
            next_count = now + max(COUNT_S, 20 * (time.monotonic() - now))
    if pidfd is not None:
        os.close(pidfd)
    for kill in (os.kill, os.killpg):  # the group exists only once the child has called setsid
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    used_s = usage.ru_utime + usage.ru_stime + sweep()
    return {"status": status, "cpu_s": used_s, "limit": limit}


def cpu_used(pid: int) -> float:
    """Return the CPU seconds of a process so far, 0 where the system does not tell."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # numbered as by clock_getcpuclockid(3)
    except OSError:
        return 0.0  # RLIMIT_CPU and the final count remain


def sweep() -> float:
    """Kill and reap every process that is left below this one; return the CPU seconds they used.

    They are stopped first and killed when all are, so that a fork bomb cannot outrun the killing.
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


def remove_folder() -> None:
    """Remove the working folder; what resists is set aside, for the judge to remove at its end."""
    shutil.rmtree("work", ignore_errors=True)
    if not os.path.lexists("work"):
        return
    with contextlib.suppress(OSError):  # the program took permissions away; nothing of it runs
        os.chmod("work", 0o700)
        for base, names, _ in os.walk("work"):
            for path in (os.path.join(base, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    shutil.rmtree("work", ignore_errors=True)
    if os.path.lexists("work"):  # nested more deeply than this can follow
        os.rename("work", f"left-{time.monotonic_ns()}")


def tasks_of_user() -> int:
    """Count the threads of this user, which RLIMIT_NPROC counts too."""
    count = 0
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{entry}/task"))
    return count


def choose_uid(judge_pid: int, child: types.ModuleType) -> tuple[int, bool]:
    """Return the user id of candidates (0: the judge's own) and whether it can read the judge.

    Only root can change it, and only to a user who can read the standard library.
    """
    # Different for zygotes that live at the same time, so that neither signals reach across nor
    # the limit on processes is shared.
    other = 61184 + os.getpid() % 4000
    if os.geteuid() == 0:
        readable = probe(other, judge_pid, child)
        if readable is not None:
            return other, readable
    return 0, probe(0, judge_pid, child) is not False


def probe(uid: int, judge_pid: int, child: types.ModuleType) -> bool | None:
    """Try life as `uid` in a fork: can it open the judge's memory? None: it cannot live at all."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            child.drop_privileges(uid)
            library = os.path.dirname(os.__file__)
            folders = [library, os.path.join(library, "lib-dynload")]
            if all(os.access(f, os.R_OK | os.X_OK) for f in folders if uid):
                code = 0
                os.close(os.open(f"/proc/{judge_pid}/mem", os.O_RDONLY))
                code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: False, 1: True}.get(code)


def main() -> None:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
    spec = importlib.util.spec_from_file_location("child", path)
    child = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(child)
    site.setquit()  # exit() and quit(), which -S leaves out
    prelude = child.load_prelude()
    gc.collect()
    gc.freeze()
    forked = serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), child)
    if forked is not None:
        child.run_test(*forked, prelude)


if __name__ == "__main__":
    main()
