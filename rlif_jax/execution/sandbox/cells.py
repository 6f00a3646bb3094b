"""What a loader and its tests get for themselves. Standard library only.

In namespaces a program gets a new pid namespace and a new /proc, and a test gets a new empty folder
and process ids from 2 on: nothing has to be cleared. Elsewhere they get a folder that is emptied.
Sources: pid_namespaces(7), proc(5), tmpfs(5).
"""

import contextlib
import ctypes
import os
import time

from rlif_jax.execution.sandbox import seccomp
from rlif_jax.execution.sandbox.libc import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    SIGKILL,
    SIGSTOP,
    checked,
    keep_capabilities,
    libc,
    mount,
    mount_now,
    prctl,
    umount2,
)
from rlif_jax.execution.sandbox.processes import below

BOX = "/box"  # the only writable folder, new for each test: the root of a file system in memory
OUTER_PROC = "/outer"  # the zygote's own, covered before there are programs
BOX_BYTES = 64 << 20
BOX_FILES = 8192
NEW_PID_NAMESPACE = 0x20000000
_MNT_DETACH = 2
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8


class Cell:
    """The base of both kinds of cell."""

    forbid_forks = None
    """Call it in a process that may not fork; None where system calls cannot be filtered."""


class NamespaceCell(Cell):
    """A cell in the namespaces in which the zygote is root.

    `uid`, unless 0, is the user that tests become.
    """

    def __init__(self, uid: int):
        self._uid = uid
        self._own_pids = os.open(f"{OUTER_PROC}/self/ns/pid", os.O_RDONLY)
        self._last_pid = None
        with contextlib.suppress(OSError):  # a kernel without checkpoints, or a closed /proc/sys
            self._last_pid = os.open(f"{OUTER_PROC}/sys/kernel/ns_last_pid", os.O_WRONLY)
        self.proc = os.open(OUTER_PROC, os.O_RDONLY | os.O_DIRECTORY)
        # It must stay mounted so that others can be mounted, but need not be visible.
        mount("none", OUTER_PROC, "tmpfs", _READ_ONLY, "mode=555,size=4k")

    @property
    def process_ids(self) -> str:
        """How process ids run, in words."""
        return "increase from test to test" if self._last_pid is None else "restart for each test"

    def fork_loader(self) -> int:
        """Fork the first process of a new pid namespace; return its id, 0 in it."""
        checked(libc().unshare(NEW_PID_NAMESPACE), "unshare")
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                checked(libc().setns(self._own_pids, NEW_PID_NAMESPACE), "setns")
        return pid

    def enter(self) -> None:
        """In the loader: mount a /proc that shows a test only its own processes."""
        flags = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC
        # 4 shows the processes that one may trace; 2 would show all to members of root's group.
        mount("proc", "/proc", "proc", flags, "hidepid=4,subset=pid")

    def make_reset(self):
        """In the loader: return a function that prepares an empty folder and process id 2.

        It is called before each test, and touches little memory (loader.py).
        """
        chdir, pwrite = os.chdir, os.pwrite
        box, kind, flags = BOX.encode(), b"tmpfs", ctypes.c_ulong(_NO_SUID | _NO_DEVICES)
        options = f"mode=700,size={BOX_BYTES},nr_inodes={BOX_FILES},uid={self._uid},gid={self._uid}"
        options, last_pid, one = options.encode(), self._last_pid, b"1"

        def reset():
            umount2(box, _MNT_DETACH)  # nothing is mounted before the first test
            if mount_now(kind, box, kind, flags, options):
                raise OSError(f"no file system at {BOX}")
            chdir(box)
            if last_pid is not None:
                pwrite(last_pid, one, 0)

        return reset

    def make_confine(self, shown: bool):
        """In the loader: return a function by which a test drops the loader's privileges.

        `shown`: the test may read /proc/self.
        """
        uid, setresgid, setresuid = self._uid, os.setresgid, os.setresuid

        def confine():
            if uid:  # all capabilities go with it
                setresgid(uid, uid, uid)
                setresuid(uid, uid, uid)
            else:
                keep_capabilities(())
            if shown:  # else these files belong to root
                prctl(PR_SET_DUMPABLE, 1)

        return confine

    def kill_all(self) -> None:
        """In the loader: kill all processes but itself, at once."""
        os.kill(-1, SIGKILL)

    def clean_up(self) -> None:
        """In the zygote, after the loader and with it its namespace have ended."""
        for place in (b"/proc", BOX.encode()):
            umount2(place, _MNT_DETACH)  # fails harmlessly if the loader ended before mounting


class FolderCell(Cell):
    """A cell without namespaces: the current folder, and processes that see those of others."""

    def __init__(self):
        self.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)

    def fork_loader(self) -> int:
        """Fork a loader; return its id, 0 in it."""
        return os.fork()

    def enter(self) -> None:
        """In the loader: become the parent of all orphans below it."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def make_reset(self):
        """In the loader: return a function that empties the folder before each test."""
        return self._reset

    def _reset(self) -> None:
        """Empty the folder and reset its attributes, if it has been changed."""
        os.chmod(".", 0o700)
        if not os.listdir(".") and os.stat(".").st_mtime_ns == 0:
            return
        pid = os.fork()  # so that tests do not inherit what this imports and touches
        if pid == 0:
            with contextlib.suppress(BaseException):
                _empty(".")
                os._exit(0)
            os._exit(1)
        if os.waitpid(pid, 0)[1]:
            raise OSError("the folder of candidate programs cannot be emptied")

    def make_confine(self, shown: bool):
        """In the loader: return a function that keeps a test from signalling others."""

        def confine():
            if shown:
                prctl(PR_SET_DUMPABLE, 1)
            if self.forbid_forks:
                seccomp.install(seccomp.program_filter(os.getpid()))

        return confine

    def kill_all(self) -> None:
        """In the loader: kill all processes below it.

        All are stopped before any is killed, so that a fork bomb cannot outrun this.
        """
        stopped: set[int] = set()
        while new := self._living() - stopped:
            _signal_all(new, SIGSTOP)
            stopped |= new
        _signal_all(stopped, SIGKILL)

    def _living(self) -> set[int]:
        return {pid for pid, (_, lives) in below(self.proc, os.getpid()).items() if lives}

    def clean_up(self) -> None:
        """In the zygote: kill and reap what a killed loader left behind; empty the folder."""
        with contextlib.suppress(ChildProcessError):
            while True:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    self.kill_all()
                    time.sleep(0.001)
        self._reset()


def _signal_all(pids: set[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)


def _empty(folder: str) -> None:
    """Remove a folder's contents and reset its times; raises OSError when that fails."""
    import shutil

    def insist(remove, path, _):  # the program removed permissions; none of its processes runs
        for place in (os.path.dirname(path), path):
            os.chmod(place, 0o700)
        remove(path) if remove in (os.unlink, os.rmdir) else shutil.rmtree(path)

    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=insist)
        else:
            os.unlink(entry.path)
    os.utime(folder, (0, 0))
