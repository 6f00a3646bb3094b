"""New namespaces for a zygote, with a root that shows little. Standard library only.

The first process of new user, pid, network, mount, IPC and UTS namespaces sees read-only bind
mounts of Python's library and the system's shared libraries, and nothing else of this machine.
Sources: namespaces(7), user_namespaces(7), pivot_root(2).
"""

import _socket
import contextlib
import ctypes
import os
import struct

from rlif_jax.execution.sandbox.cells import BOX, OUTER_PROC
from rlif_jax.execution.sandbox.libc import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    SIGKILL,
    checked,
    libc,
    mount,
    prctl,
)
from rlif_jax.execution.sandbox.paths import DEVICES, open_path, package_folders, readable_paths
from rlif_jax.execution.sandbox.seccomp import NUMBERS

THIRD_PARTY = "/python"  # where numpy is found

_NEW_NAMESPACES = (0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x08000000, 0x04000000)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID = 1, 2

_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/shm": BOX,
    "/tmp": BOX,
}


def enter_namespaces(other_uid: int, packages: list[str]) -> str:
    """Become the first process of new namespaces, or return why that is impossible.

    On success this returns "" in a new process; the calling process waits for it to end and exits.
    In the calling process it returns only the reason for a failure. `other_uid`, when not 0,
    is a user of this machine whom root maps to user 1 of the namespace. `packages` are paths that
    programs may import.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # the first process becomes our child when the middle one ends
    middle = os.fork()
    if middle == 0:
        ours.close()
        _become_first(theirs, packages)
        return ""
    theirs.close()
    answer = ours.recv(4096)
    if answer == b"map":
        ours.send(_map_users(middle, other_uid).encode())
        answer = ours.recv(4096)
    os.waitpid(middle, 0)
    if answer == b"ready":
        ours.send(b"go")
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.wait()
    return answer.decode(errors="replace") or "the process that makes them ended"


def _map_users(pid: int, other_uid: int) -> str:
    """Write the user and group maps of a process in a new user namespace; "mapped" if done."""
    uid, gid = os.geteuid(), os.getegid()
    maps = {"uid_map": f"0 {uid} 1\n", "gid_map": f"0 {gid} 1\n"}
    if other_uid:
        with contextlib.suppress(OSError):  # in a container these users may not exist
            for name, text in maps.items():
                _write(f"/proc/{pid}/{name}", text + f"1 {other_uid} 1\n")
            return "mapped"
    try:
        _write(f"/proc/{pid}/setgroups", "deny")  # without it an ordinary user cannot map groups
        for name, text in maps.items():
            _write(f"/proc/{pid}/{name}", text)
    except OSError as error:
        return f"user map: {error}"
    return "mapped"


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _become_first(outer: _socket.socket, packages: list[str]) -> None:
    """In the middle process: make the namespaces; return in the first process inside them."""
    try:
        for flag in _NEW_NAMESPACES:
            checked(libc().unshare(flag), f"unshare({flag:#x})")
        outer.send(b"map")
        answer = outer.recv(4096)
        if answer != b"mapped":
            outer.send(answer)
            os._exit(1)
        if os.fork():
            os._exit(0)
        _build_root(packages)
        outer.send(b"ready")
        if outer.recv(16) != b"go":  # by now the outer process is our parent
            os._exit(1)
        prctl(PR_SET_PDEATHSIG, SIGKILL)
        outer.close()
    except OSError as error:
        with contextlib.suppress(OSError):
            outer.send(str(error).encode())
        os._exit(1)


def _build_root(packages: list[str]) -> None:
    """Replace this mount namespace's root by one that shows only what programs need."""
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    root = "/tmp" if os.path.isdir("/tmp") else "/mnt"  # any folder that no mount below hides
    places = readable_paths()
    hidden = package_folders(places)
    links = _LINKS | {place: os.readlink(place) for place in places if os.path.islink(place)}
    sources = {place: open_path(place) for place in places if place not in links}
    sources |= {device: open_path(device) for device in DEVICES}
    sources |= {f"{THIRD_PARTY}/{os.path.basename(p)}": open_path(p) for p in packages}
    mount("none", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for place, descriptor in sources.items():
        _bind(f"/proc/self/fd/{descriptor}", root + place)
        os.close(descriptor)
    for place, target in links.items():
        os.makedirs(os.path.dirname(root + place), exist_ok=True)
        os.symlink(target, root + place)
    for place in hidden:
        if os.path.isdir(root + place):
            mount("none", root + place, "tmpfs", _MS_RDONLY, "mode=555,size=4k")
    os.makedirs(root + "/proc")
    os.makedirs(root + OUTER_PROC)
    mount("proc", root + OUTER_PROC, "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.makedirs(root + BOX)
    os.chdir(root)
    numbers = NUMBERS[os.uname().machine]
    checked(libc().syscall(numbers["pivot_root"], b".", b"."), "pivot_root")
    checked(libc().umount2(b".", _MNT_DETACH), "umount")
    mount(None, "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir("/")


def _bind(source: str, target: str) -> None:
    """Show `source`, a folder or a file, at `target` as well, read-only with all below it."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, None, _MS_BIND | _MS_REC)
    attributes = struct.pack("4Q", _ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)
    number = NUMBERS[os.uname().machine]["mount_setattr"]
    flags, size = ctypes.c_uint(_AT_RECURSIVE), ctypes.c_size_t(len(attributes))
    result = libc().syscall(number, _AT_FDCWD, target.encode(), flags, attributes, size)
    checked(result, f"mount_setattr({target})")
