"""How a zygote shuts itself and its programs in, as far as the machine allows.

Standard library only. A zygote gives up all that a candidate may not have before it forks the first
one, since giving up costs time: user, capabilities, limits, system calls. What still keeps the two
apart is that the zygote cannot be read (it is undumpable), nor signalled (it is the first process
of its pid namespace, or a filter refuses). Sources: capabilities(7), pid_namespaces(7), prctl(2).
"""

import contextlib
import os
import resource
import signal

from rlif_jax.execution.sandbox import seccomp
from rlif_jax.execution.sandbox.landlock import close_file_system
from rlif_jax.execution.sandbox.libc import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    drop_capabilities,
    prctl,
)
from rlif_jax.execution.sandbox.namespaces import THIRD_PARTY, enter_namespaces

PROCESSES = 64  # of a candidate
OPEN_FILES = 256
FILE_BYTES = 64 << 20
STACK_BYTES = 112 << 20  # the kernel keeps at least 128 MiB below the stack free of mappings
THREADS_BYTES = 1 << 30  # address space for stacks of threads, which are mapped whole


def shut_in(options: dict) -> tuple[dict, dict[str, str]]:
    """Shut this process in as far as the machine allows; return (cell, report).

    `options` has the judge's process id, the `packages` that programs may import and the
    `memory_bytes` that they may use. `cell` is what a fork needs to know, `report` says in words
    how far it went, for people and for the judge. On return the current folder is the only one that
    programs may write to.
    """
    other_uid = _free_users()
    reason = enter_namespaces(other_uid, options["packages"])
    alone = not reason
    report = {"namespaces": f"none ({reason})" if reason else "user, pid, network, mount, IPC, UTS"}
    if alone:
        uid = _other_user(1) if _users_mapped() > 1 else 0
        report["user"] = "another" if uid else "own namespace"
        report["files"] = "a read-only root with one folder in memory"
        packages, processes = THIRD_PARTY, PROCESSES + 1
    else:
        # Different for zygotes that live at the same time, so that neither signals reach across
        # nor the limit on processes is shared.
        uid = _other_user(other_uid, os.getcwd()) if other_uid else 0
        report["user"] = "another" if uid else "the judge's"
        if other_uid and not uid:
            report["user"] += " (Python or the folder for temporary files is closed to others)"
        packages = _linked_packages(options["packages"])
        processes = PROCESSES + (1 if uid else tasks_of_user())
        os.mkdir("work", 0o700)
        os.chdir("work")
    if uid:
        os.chown(".", uid, uid)
    _set_limits(options["memory_bytes"], processes)
    _become(uid, alone)
    if not alone:
        report["reads_judge"] = "yes" if _can_read(options["judge_pid"]) else ""
        reason = close_file_system(os.getcwd(), [packages, *options["packages"]])
        report["files"] = f"open ({reason})" if reason else "Landlock"
    filtered = _filter_system_calls(report)
    report["network"] = "none" if alone or filtered else "open"
    return {"alone": alone, "reachable": filtered and not alone, "packages": packages}, report


def hide() -> None:
    """Make this process unreadable for other processes of its user, its forks among them."""
    prctl(PR_SET_DUMPABLE, 0)


def show() -> None:
    """Undo `hide`, in a fork: the files in /proc/self would belong to root."""
    prctl(PR_SET_DUMPABLE, 1)


def _become(uid: int, alone: bool) -> None:
    """Give up for good what a candidate may not have: the user (unless 0) and all capabilities.

    A root without capabilities cannot read the memory of a root that has them.
    """
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    drop_capabilities()
    hide()
    if alone:  # once more: a change of user forgets it
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans become children of the zygote, which kills them
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    # A handler would open the first process of a pid namespace to signals from inside.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _set_limits(memory_bytes: int, processes: int) -> None:
    """Limit this process and its forks; a fork's CPU time is limited when it is made."""
    limit(resource.RLIMIT_AS, memory_bytes, memory_bytes + THREADS_BYTES)
    limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    limit(resource.RLIMIT_NPROC, processes)
    # 1 rather than 0: the kernel hands a core dump of limit 0 to a pipe, if one is set up
    limit(resource.RLIMIT_CORE, 1)
    # Programs may raise it, as many do at their start: a stack is part of the address space.
    limit(resource.RLIMIT_STACK, STACK_BYTES, resource.RLIM_INFINITY)


def limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit of this process, `hard` where that is another, as far as it may be set."""
    highest = resource.getrlimit(kind)[1]
    values = (soft, soft if hard is None else hard)
    if highest != resource.RLIM_INFINITY:
        values = tuple(highest if v == resource.RLIM_INFINITY else min(v, highest) for v in values)
    resource.setrlimit(kind, values)


def limit_memory(memory_bytes: int, threads: bool) -> None:
    """Limit a fork's address space for good, to more than `memory_bytes` if it has threads.

    Then it is the memory in use that is held to `memory_bytes`, by the zygote and the judge.
    """
    limit(resource.RLIMIT_AS, memory_bytes + THREADS_BYTES * threads)


def _free_users() -> int:
    """Return the user id to give to candidates, 0 when this is not root."""
    return 61184 + os.getpid() % 4000 if os.geteuid() == 0 else 0


def _users_mapped() -> int:
    with open("/proc/self/uid_map") as lines:
        return len(lines.readlines())


def _other_user(uid: int, way: str = "/") -> int:
    """Return `uid` if that user can read Python's standard library and pass `way`, else 0."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            library = os.path.dirname(os.__file__)
            folders = [library, os.path.join(library, "lib-dynload")]
            readable = all(os.access(folder, os.R_OK | os.X_OK) for folder in folders)
            code = int(not (readable and os.access(way, os.X_OK)))
        os._exit(code)
    return uid if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 else 0


def _can_read(pid: int) -> bool:
    """Tell whether this process could read the memory of another, as a candidate could."""
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except OSError:
        return False
    return True


def _filter_system_calls(report: dict[str, str]) -> bool:
    """Install the filter of zygotes; note in `report` whether it could be."""
    reason = "" if seccomp.supported() else f"unknown processor {os.uname().machine}"
    try:
        if not reason:
            seccomp.install(seccomp.zygote_filter())
    except OSError as error:
        reason = str(error)
    report["system_calls"] = f"open ({reason})" if reason else "filtered"
    return not reason


def _linked_packages(packages: list[str]) -> str:
    """Return a folder that holds links to `packages` and nothing else."""
    os.mkdir("python", 0o755)
    for path in packages:
        os.symlink(path, os.path.join("python", os.path.basename(path)))
    return os.path.abspath("python")


def tasks_of_user() -> int:
    """Count the threads of this user, which RLIMIT_NPROC counts too."""
    count = 0
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{entry}/task"))
    return count
