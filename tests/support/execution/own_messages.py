"""Attacks on this judge that leave a message for the next run."""

from support.execution.own_attacks import PASSED, UNTOUCHED, Attack

_MARK = "def tell(found): print(int(bool(found)))\nimport ctypes, os, platform\n"
_LIBC = "libc = ctypes.CDLL(None, use_errno=True)\ncall = libc.syscall\n"


def _message(what: str, code: str) -> Attack:
    """A program that prints 1 where it finds what an earlier run of it has left."""
    return Attack(what, UNTOUCHED, {PASSED}, _MARK + _LIBC + code)


MESSAGES = {
    "times": _message(
        "a message in the folder's times",
        "tell(os.stat('.').st_mtime_ns == 12345 or os.stat('.').st_atime_ns == 12345)\n"
        "os.utime('.', ns=(12345, 12345))",
    ),
    "mode": _message(
        "a message in the folder's mode",
        "tell(os.stat('.').st_mode & 0o7055)\nos.chmod('.', 0o3755)",
    ),
    "inode_flags": _message(
        "a message in the folder's flags, as chattr sets them",
        "import fcntl, struct\nfd = os.open('.', os.O_RDONLY)\nflags = 0\ntry:\n"
        "    old = fcntl.ioctl(fd, 0x80086601, bytes(8))\n"
        "    flags = struct.unpack('l', old)[0] & 0x40\n"
        "    fcntl.ioctl(fd, 0x40086602, struct.pack('l', 0x40))\n"
        "except OSError: pass\ntell(flags)",
    ),
    "attribute": _message(
        "a message in an attribute of the folder, by old and by new system calls",
        "fd = os.open('.', os.O_RDONLY)\nfound = False\n"
        "try: found = os.listxattr('.')\nexcept OSError: pass\ntell(found)\n"
        "try: os.setxattr('.', 'user.m', b'1')\nexcept OSError: pass\n"
        "text = ctypes.create_string_buffer(b'message')\n"
        "class Value(ctypes.Structure):\n"
        "    _fields_ = [('at', ctypes.c_uint64), ('size', ctypes.c_uint32), "
        "('flags', ctypes.c_uint32)]\n"
        "value = Value(ctypes.addressof(text), 7, 0)\n"
        "call(463, -100, b'.', 0, b'user.m', ctypes.byref(value), ctypes.c_size_t(16))",
    ),
    "nice": _message(
        "less processor time for whoever comes after, by way of the user",
        "tell(os.getpriority(os.PRIO_PROCESS, 0) == 19)\n"
        "for which in (os.PRIO_USER, os.PRIO_PGRP, os.PRIO_PROCESS):\n"
        "    for who in (0, 1, os.getuid(), os.getppid()):\n"
        "        try: os.setpriority(which, who, 19)\n        except OSError: pass",
    ),
    "shared_memory": _message(
        "shared memory that nobody removes",
        "import _posixshmem\nfound = False\n"
        "try: found = _posixshmem.shm_open('/left', os.O_RDWR, mode=0o600) > 0\n"
        "except OSError: _posixshmem.shm_open('/left', os.O_RDWR | os.O_CREAT, mode=0o600)\n"
        "tell(found)",
    ),
    "semaphore": _message(
        "a named semaphore that nobody removes",
        "import _multiprocessing\nfound = False\n"
        "try: _multiprocessing.SemLock(1, 1, 1, '/left', False)\n"
        "except FileExistsError: found = True\ntell(found)",
    ),
    "system_v": _message(
        "shared memory, semaphores and queues of System V",
        "numbers = {'x86_64': (29, 64, 68), 'aarch64': (194, 190, 186)}[platform.machine()]\n"
        "found = False\nfor number, size in zip(numbers, (4096, 1, 0o666)):\n"
        "    found |= call(number, 77, size, 0o600) >= 0\n"
        "    call(number, 77, size, 0o1600)\ntell(found)",
    ),
    "keyring": _message(
        "a key that the kernel keeps for the user",
        "add = {'x86_64': 248, 'aarch64': 217}[platform.machine()]\n"
        "tell(call(add, b'user', b'left', b'1', 1, -4) >= 0)",
    ),
    "orphan_socket": _message(
        "a process that stays behind and answers on a socket",
        "import socket, time\nfound, b = True, None\ntry:\n"
        "    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "    a.sendto(b'?', '\\0left')\nexcept OSError: found = False\ntell(found)\n"
        "if not found and os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        try: b and b.bind('\\0left')\n        except OSError: pass\n"
        "        time.sleep(5)\n"
        "    os._exit(0)",
    ),
    "lock": _message(
        "a lock on a file of the library, held by a process that stays behind",
        "import fcntl, time\nlibrary = open(os.__file__)\nfound = False\n"
        "try: fcntl.flock(library, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError: found = True\ntell(found)\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(5)",
    ),
    "lease": _message(
        "a lease on a file of the library",
        "import fcntl\nlibrary = os.open(os.__file__, os.O_RDONLY)\nfound = True\n"
        "try: fcntl.fcntl(library, fcntl.F_SETLEASE, fcntl.F_RDLCK)\n"
        "except OSError: found = False\ntell(found)",
    ),
    "folder_above": _message(
        "a file beside the working folder, or another working folder",
        "found = os.path.exists('../left')\nhere = os.getcwd()\n"
        "for path in ('../left', '/left', '/dev/left', '/var/tmp/left', '/proc/left'):\n"
        "    try: open(path, 'w').close()\n    except OSError: pass\n"
        "for change in (lambda: os.rmdir(here), lambda: os.rename(here, here + 'x')):\n"
        "    try: change()\n    except OSError: pass\ntell(found)",
    ),
}
