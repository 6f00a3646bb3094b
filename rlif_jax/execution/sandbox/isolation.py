"""How a zygote sandboxes itself and its programs, as far as the machine allows.

Standard library only. Dropping privileges takes time, so a zygote drops what a candidate may not
have before it forks the first one: files, network, limits, system calls. In namespaces the zygote
and its loaders stay root there, with the few capabilities that new cells need, and a test drops
these and the user (cells.py); elsewhere the zygote does. Zygote and loader can be neither read
(they are undumpable) nor signalled (they are first processes of their pid namespaces, or a filter
refuses). Sources: capabilities(7), pid_namespaces(7), prctl(2).
"""

import _signal
import contextlib
import os

from rlif_jax.execution.sandbox import libc, seccomp
from rlif_jax.execution.sandbox.cells import OUTER_PROC, FolderCell, NamespaceCell
from rlif_jax.execution.sandbox.landlock import close_file_system
from rlif_jax.execution.sandbox.namespaces import THIRD_PARTY, enter_namespaces
from rlif_jax.execution.sandbox.processes import PROCESSES

OPEN_FILES = 256
# Of a loader in namespaces, which mounts and forks for others: CAP_DAC_READ_SEARCH, CAP_KILL,
# CAP_SETGID, CAP_SETUID, CAP_SYS_PTRACE, CAP_SYS_ADMIN
CAPABILITIES = (2, 5, 6, 7, 19, 21)
FILE_BYTES = 64 << 20
STACK_BYTES = 112 << 20  # the kernel keeps at least 128 MiB below the stack free of mappings
THREADS_BYTES = 1 << 30  # address space for stacks of threads, which are mapped whole


def enter_sandbox(options: dict) -> tuple[NamespaceCell | FolderCell, str, dict[str, str]]:
    """Sandbox this process as far as the machine allows; return (cell, packages, report).

    `options` has the judge's process id, the `packages` that programs may import and the
    `memory_bytes` that they may use. `cell` is what loaders and tests get, `packages` the folder
    from which they may import, and `report` says in words what was sandboxed, for people and for
    the judge.
    """
    other_uid = _candidate_uid()
    reason = enter_namespaces(other_uid, options["packages"])
    report = {"namespaces": f"none ({reason})" if reason else "user, pid, network, mount, IPC, UTS"}
    if reason:
        return _enter_without_namespaces(options, other_uid, report)
    uid = _usable_uid(1) if _mapped_users() > 1 else 0
    report["user"] = "separate" if uid else "own namespace"
    report["files"] = "a read-only root with one folder in memory"
    cell = NamespaceCell(uid)
    report["process_ids"] = cell.process_ids
    if uid:
        os.setgroups([])
    _set_limits(options["memory_bytes"], PROCESSES + (0 if uid else 4))
    libc.keep_capabilities(CAPABILITIES)
    _protect_process()
    libc.prctl(libc.PR_SET_PDEATHSIG, libc.SIGKILL)
    if _filter_system_calls(report, in_namespaces=True):
        cell.forbid_forks = seccomp.installer(seccomp.no_fork_filter())
    report["network"] = "none"
    return cell, THIRD_PARTY, report


def _enter_without_namespaces(
    options: dict, other_uid: int, report: dict[str, str]
) -> tuple[FolderCell, str, dict[str, str]]:
    """Do what `enter_sandbox` does, without namespaces; the cell is a new folder in this one."""
    # Different for zygotes that live at the same time, so that they cannot signal each other and
    # do not share the limit on processes.
    uid = _usable_uid(other_uid, os.getcwd()) if other_uid else 0
    report["user"] = "separate" if uid else "the judge's"
    if other_uid and not uid:
        report["user"] += " (other users cannot read Python or the temporary folder)"
    packages = _linked_packages(options["packages"])
    os.mkdir("work", 0o700)
    os.chdir("work")
    if uid:
        os.chown(".", uid, uid)
    own = 3  # the zygote, a loader and its fork
    _set_limits(options["memory_bytes"], PROCESSES + own + (0 if uid else tasks_of_user()))
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.keep_capabilities(())
    _protect_process()
    report["reads_judge"] = "yes" if _can_read(options["judge_pid"]) else ""
    reason = close_file_system(os.getcwd(), [packages, *options["packages"]])
    report["files"] = f"open ({reason})" if reason else "Landlock"
    cell = FolderCell()
    report["network"] = "open"
    if _filter_system_calls(report, in_namespaces=False):
        report["network"] = "none"
        cell.forbid_forks = seccomp.installer(seccomp.no_fork_filter())
    return cell, packages, report


def _protect_process() -> None:
    libc.prctl(libc.PR_SET_DUMPABLE, 0)  # no other process of the user may read this one
    libc.prctl(
        libc.PR_SET_CHILD_SUBREAPER, 1
    )  # orphans become children of the zygote, which kills them
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    # A handler would let signals from inside reach the first process of a pid namespace.
    _signal.signal(libc.SIGINT, _signal.SIG_DFL)
    # If it were ignored, the usage of a child that nobody waits for would be lost.
    _signal.signal(libc.SIGCHLD, _signal.SIG_DFL)


def _set_limits(memory_bytes: int, processes: int) -> None:
    """Limit this process and its forks; a fork's CPU time is limited when it starts."""
    libc.limit(libc.RLIMIT_AS, memory_bytes, memory_bytes + THREADS_BYTES)
    libc.limit(libc.RLIMIT_FSIZE, FILE_BYTES)
    libc.limit(libc.RLIMIT_NOFILE, OPEN_FILES)
    libc.limit(libc.RLIMIT_NPROC, processes)
    # 1 rather than 0: the kernel hands a core dump of limit 0 to a pipe, if one is set up
    libc.limit(libc.RLIMIT_CORE, 1)
    # Programs may raise it, as many do at their start: a stack is part of the address space.
    libc.limit(libc.RLIMIT_STACK, STACK_BYTES, libc.RLIM_INFINITY)


def limit_program(job: dict) -> None:
    """Limit the address space and the CPU time of a loader and its forks for good.

    A program with threads may map more than `memory_bytes`; the zygote and the judge then limit its
    memory in use to that.
    """
    libc.limit(libc.RLIMIT_AS, job["memory_bytes"] + THREADS_BYTES * job["threads"])
    # A backstop: it counts by timer ticks, which may run ahead of the time used on a busy machine,
    # and includes the loader's work for all tests.
    libc.limit(libc.RLIMIT_CPU, int(2 * total_cpu_s(job) + job["calls"] // 100) + 2)


def total_cpu_s(job: dict) -> float:
    """Return the CPU seconds that the processes of one fork of a loader may use together."""
    return job["cpu_s"] * (1 if job["kind"] == "stdin" else job["calls"])


def _candidate_uid() -> int:
    """Return the user id for candidates, 0 when this process is not root."""
    return 61184 + os.getpid() % 4000 if os.geteuid() == 0 else 0


def _mapped_users() -> int:
    with open(f"{OUTER_PROC}/self/uid_map") as lines:
        return len(lines.readlines())


def _usable_uid(uid: int, path: str = "/") -> int:
    """Return `uid` if that user can read Python's standard library and enter `path`, else 0."""
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
            code = int(not (readable and os.access(path, os.X_OK)))
        os._exit(code)
    return uid if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 else 0


def _can_read(pid: int) -> bool:
    """Tell whether this process could read the memory of another, as a candidate could."""
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except OSError:
        return False
    return True


def _filter_system_calls(report: dict[str, str], in_namespaces: bool) -> bool:
    """Install the filter of zygotes; write into `report` whether it is active."""
    reason = "" if seccomp.supported() else f"unknown processor {os.uname().machine}"
    try:
        if not reason:
            seccomp.install(seccomp.zygote_filter(in_namespaces))
    except OSError as error:
        reason = str(error)
    report["system_calls"] = f"unfiltered ({reason})" if reason else "filtered"
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
