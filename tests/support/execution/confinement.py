"""Ways for a test process to make itself weaker, so that its judge has less to sandbox with.

They are the real thing: a process that has become an ordinary user, or that may make no namespaces,
as in a container. Linux only; what root does here an ordinary user need not do.
"""

import errno
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from rlif_jax.execution.sandbox import seccomp
from rlif_jax.execution.sandbox.libc import (
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    checked,
    keep_capabilities,
    libc,
    prctl,
)

LEVELS = ("as it is", "one user", "a user", "no namespaces", "a user, no namespaces")
ROOT = os.geteuid() == 0
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_REC_PRIVATE, _REC_BIND = 16384 | 1 << 18, 4096 | 16384
_ORDINARY = 1000


def run_at(level: str, folder: Path, request: dict) -> dict:
    """Run weaker.py at this level, in `folder`; return what it says, {"error"} if it ends badly."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        "TMPDIR": str(folder / "tmp"),
        "CANARY_TOKEN": "s3cr3t",
    }
    script = Path(__file__).with_name("weaker.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps({"level": level, **request}),
        capture_output=True,
        text=True,
        cwd=folder / "here",
        env=environment,
        timeout=300,
    )
    if done.returncode != 0:
        return {"error": f"{level}: status {done.returncode}\n{done.stderr[-3000:]}"}
    return json.loads(done.stdout)


def become(level: str) -> None:
    """Make this process, which must have one thread, as weak as that; there is no way back."""
    if level == "one user" and ROOT:
        _map_alone(0, 0)
    if "a user" in level and ROOT:
        os.setgroups([])  # nor may it be in root's group
        os.setresgid(_ORDINARY, _ORDINARY, _ORDINARY)
        _map_alone(_ORDINARY, _ORDINARY)
        keep_capabilities(())
        prctl(PR_SET_DUMPABLE, 1)  # as a program that it starts
    if "no namespaces" in level:
        if level == "no namespaces" and ROOT:
            for place in (os.__file__, importlib.util.find_spec("numpy").origin):
                _open_the_way_to(Path(os.path.realpath(place)).parent)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(_no_namespaces())


def _map_alone(uid: int, gid: int) -> None:
    """Enter a user namespace that knows only root, under the number `uid`, and the group `gid`.

    Files of root are then this user's own and those of others nobody's, as for a real user.
    """
    checked(libc().unshare(_NEW_USER), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} 0 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path("/proc/self", name).write_text(text)


def _no_namespaces() -> bytes:
    """A filter that refuses new namespaces, as a container's does."""
    numbers = seccomp.NUMBERS[platform.machine()]
    clone = [
        seccomp._instruction(seccomp._LOAD, seccomp._ARGUMENTS),
        seccomp._instruction(seccomp._JUMP_SET, seccomp._NAMESPACES, 0, 1),
        seccomp._refuse(errno.EPERM),
        seccomp._instruction(seccomp._RETURN, seccomp._ALLOW),
    ]
    rules = [seccomp._instruction(seccomp._LOAD, seccomp._NUMBER)]
    for name, body in (
        ("unshare", [seccomp._refuse(errno.EPERM)]),
        ("setns", [seccomp._refuse(errno.EPERM)]),
        ("clone3", [seccomp._refuse(errno.ENOSYS)]),
        ("clone", clone),
    ):
        rules += seccomp._when(numbers[name], body)
    return seccomp._complete(rules)


def _open_the_way_to(library: Path) -> None:
    """Let every user read a library where it lies in a private folder, as root's.

    That folder is covered, for this process only, by one that shows nothing but the way.
    """
    folders = [*reversed(library.parents), library]
    closed = [n for n, folder in enumerate(folders) if folder.stat().st_mode & 0o5 != 0o5]
    if not closed:
        return
    cover, way = folders[closed[0]], folders[closed[0] + 1]
    assert len(closed) == 1, f"more than one of {library}'s folders is private"
    checked(libc().unshare(_NEW_MOUNTS), "unshare")
    _mount(None, "/", None, _REC_PRIVATE, None)
    shown = os.open(way, os.O_PATH)
    _mount("none", str(cover), "tmpfs", 0, "mode=755")
    way.mkdir()
    _mount(f"/proc/self/fd/{shown}", str(way), None, _REC_BIND, None)
    os.close(shown)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None
) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    result = libc().mount(*words, flags, None if options is None else options.encode())
    checked(result, f"mount at {target}")
