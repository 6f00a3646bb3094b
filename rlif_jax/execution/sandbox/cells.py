"""What a loader and its tests get for themselves. Standard library only.

In namespaces that is a pid namespace and a /proc for each program, an empty folder and a first
process id for each test: all of them new, so that nothing has to be cleared. Elsewhere it is a
folder that is emptied. Sources: pid_namespaces(7), proc(5), tmpfs(5).
"""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable

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
    """What both kinds have."""

    refuse_processes: Callable[[], int] | None = None
    """Call it for a process that may have none below it; None where no call can be refused."""


class NamespaceCell(Cell):
    """A cell in the namespaces that the zygote has entered as their root.

    `uid`, unless 0, is the user that tests become.
    """

    def __init__(self, uid: int):
        self._uid = uid
        self._own_pids = os.open(f"{OUTER_PROC}/self/ns/pid", os.O_RDONLY)
        self._last_pid = None
        with contextlib.suppress(OSError):  # a kernel without checkpoints, or a closed /proc/sys
            self._last_pid = os.open(f"{OUTER_PROC}/sys/kernel/ns_last_pid", os.O_WRONLY)
        self.proc = os.open(OUTER_PROC, os.O_RDONLY | os.O_DIRECTORY)
        # It has to stay mounted for others to be, but need not be seen.
        mount("none", OUTER_PROC, "tmpfs", _READ_ONLY, "mode=555,size=4k")

    @property
    def pids(self) -> str:
        """What a test can tell from process ids, in words."""
        return "count on within a program" if self._last_pid is None else "start anew"

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
        """In the loader: show it its processes, and to a test no others than the test's own."""
        flags = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC
        # 4 shows those that may be traced; 2 would show all to whoever is in root's group.
        mount("proc", "/proc", "proc", flags, "hidepid=4,subset=pid")

    def renewal(self):
        """In the loader: return what makes the next test find an empty folder and be process 2.

        It is called before each test, and touches little (loader.py).
        """
        chdir, pwrite = os.chdir, os.pwrite
        box, kind, flags = BOX.encode(), b"tmpfs", ctypes.c_ulong(_NO_SUID | _NO_DEVICES)
        options = f"mode=700,size={BOX_BYTES},nr_inodes={BOX_FILES},uid={self._uid},gid={self._uid}"
        options, last_pid, one = options.encode(), self._last_pid, b"1"

        def renew():
            umount2(box, _MNT_DETACH)  # there is none before the first test
            if mount_now(kind, box, kind, flags, options):
                raise OSError(f"no file system at {BOX}")
            chdir(box)
            if last_pid is not None:
                pwrite(last_pid, one, 0)

        return renew

    def confinement(self, shown: bool):
        """In the loader: return what has a test give up all that sets the loader apart.

        `shown` says that the test may look into /proc/self.
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

    def leave(self) -> None:
        """In the zygote, after the loader and with it its namespace have ended."""
        for place in (b"/proc", BOX.encode()):
            umount2(place, _MNT_DETACH)  # unless the loader did not get so far


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

    def renewal(self):
        """In the loader: return what empties the folder before each test."""
        return self._renew

    def _renew(self) -> None:
        """Empty the folder and reset its attributes, if it has been changed."""
        os.chmod(".", 0o700)
        if not os.listdir(".") and os.stat(".").st_mtime_ns == 0:
            return
        pid = os.fork()  # what this imports and touches is not for the tests
        if pid == 0:
            with contextlib.suppress(BaseException):
                _empty(".")
                os._exit(0)
            os._exit(1)
        if os.waitpid(pid, 0)[1]:
            raise OSError("the folder of programs cannot be emptied")

    def confinement(self, shown: bool):
        """In the loader: return what refuses a test signals to others; `shown` as above."""

        def confine():
            if shown:
                prctl(PR_SET_DUMPABLE, 1)
            if self.refuse_processes:
                seccomp.install(seccomp.program_filter(os.getpid()))

        return confine

    def kill_all(self) -> None:
        """In the loader: kill all processes below it.

        They are stopped first and killed when all are, so that a fork bomb cannot outrun the
        killing.
        """
        stopped: set[int] = set()
        while new := self._living() - stopped:
            _signal_all(new, SIGSTOP)
            stopped |= new
        _signal_all(stopped, SIGKILL)

    def _living(self) -> set[int]:
        return {pid for pid, (_, lives) in below(self.proc, os.getpid()).items() if lives}

    def leave(self) -> None:
        """In the zygote: kill and reap what a loader has left that was ended; empty the folder."""
        with contextlib.suppress(ChildProcessError):
            while True:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    self.kill_all()
                    time.sleep(0.001)
        self._renew()


def _signal_all(pids: set[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)


def _empty(folder: str) -> None:
    """Remove what is in a folder, and its attributes; raises OSError when it resists."""
    import shutil

    def insist(remove, path, _):  # the program took permissions away; nothing of it runs
        for place in (os.path.dirname(path), path):
            os.chmod(place, 0o700)
        remove(path) if remove in (os.unlink, os.rmdir) else shutil.rmtree(path)

    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=insist)
        else:
            os.unlink(entry.path)
    os.utime(folder, (0, 0))
