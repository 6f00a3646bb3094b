"""System calls that a candidate program may not make, as a seccomp filter. Standard library only.

The filter is written here rather than by libseccomp, which many machines do not have. It is a
deny-list: whatever Python and its extension modules need to compute, read and print stays allowed.
Sources: seccomp(2), the kernel's networking/filter documentation, asm/unistd_64.h,
asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Mapping

from rlif_jax.execution.sandbox.libc import PR_SET_SECCOMP, checked, libc

# Opcodes of classic BPF: load a word of seccomp_data, compare, return.
_LOAD, _AND, _JUMP_EQUAL, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_MODE_FILTER = 2
_X32 = 0x40000000  # x86_64 system calls of the x32 interface carry this bit

_NEWER = 451  # system calls from Linux 6.5 on, whose numbers agree; the C library does without
_NAMESPACES = 0x7E020000  # CLONE_NEW* among the flags of clone(2)
# Requests of ioctl(2): characters into a terminal's input, attributes of a folder, the owner of a
# descriptor, to whom the kernel sends signals
_IOCTLS = (0x5412, 0x541C, 0x40086602, 0x401C5820, 0x8901, 0x8902)
_FCNTLS = (8, 10, 15, 1036, 1038)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: the same; hints of a file
_NEW_PID_NAMESPACE, _THREAD = 0x20000000, 0x00010000  # flags of clone(2)
_SIGCHLD = 17
# Calls that change a file's mode, owner or times.
_ATTRIBUTES = (
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "futimesat", "utimensat"),
)

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# fmt: off
_X86_64 = {  # seccomp kills calls of the 32-bit interface, whose numbers differ
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "process_madvise": 440,
    "pidfd_getfd": 438, "kcmp": 312, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
    "move_mount": 429, "open_tree": 428, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "mount_setattr": 442, "unshare": 272, "setns": 308, "keyctl": 250,
    "add_key": 248, "request_key": 249, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298,
    "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163,
    "quotactl": 179, "quotactl_fd": 443, "settimeofday": 164, "clock_settime": 227,
    "clock_adjtime": 305, "adjtimex": 159, "sethostname": 170, "setdomainname": 171,
    "personality": 135, "execve": 59, "execveat": 322, "io_uring_setup": 425,
    "io_uring_enter": 426, "io_uring_register": 427, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "fanotify_init": 300, "syslog": 103, "vhangup": 153, "shmget": 29,
    "semget": 64, "msgget": 68, "mq_open": 240, "memfd_secret": 447, "socket": 41,
    "ioprio_set": 251, "memfd_create": 319, "clone": 56, "clone3": 435, "prlimit64": 302,
    "setpriority": 141, "sched_setaffinity": 203, "sched_setparam": 142,
    "sched_setscheduler": 144, "sched_setattr": 314, "ioctl": 16, "kill": 62, "tkill": 200,
    "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424,
    "socketpair": 53, "bind": 49, "connect": 42, "setxattr": 188, "lsetxattr": 189,
    "fsetxattr": 190, "iopl": 172, "ioperm": 173, "modify_ldt": 154, "uselib": 134, "fcntl": 72,
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93,
    "lchown": 94, "fchownat": 260, "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280,
    "fork": 57, "vfork": 58, "sync": 162, "syncfs": 306, "sync_file_range": 277, "io_setup": 206,
    "fadvise64": 221, "readahead": 187, "mincore": 27, "sysinfo": 99, "preadv2": 327,
    "pwritev2": 328, "rt_sigaction": 13,
}
_AARCH64 = {
    "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "process_madvise": 440,
    "pidfd_getfd": 438, "kcmp": 272, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
    "move_mount": 429, "open_tree": 428, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "mount_setattr": 442, "unshare": 97, "setns": 268, "keyctl": 219,
    "add_key": 217, "request_key": 218, "bpf": 280, "userfaultfd": 282, "perf_event_open": 241,
    "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273,
    "delete_module": 106, "reboot": 142, "swapon": 224, "swapoff": 225, "acct": 89,
    "quotactl": 60, "quotactl_fd": 443, "settimeofday": 170, "clock_settime": 112,
    "clock_adjtime": 266, "adjtimex": 171, "sethostname": 161, "setdomainname": 162,
    "personality": 92, "execve": 221, "execveat": 281, "io_uring_setup": 425,
    "io_uring_enter": 426, "io_uring_register": 427, "name_to_handle_at": 264,
    "open_by_handle_at": 265, "fanotify_init": 262, "syslog": 116, "vhangup": 58, "shmget": 194,
    "semget": 190, "msgget": 186, "mq_open": 180, "memfd_secret": 447, "socket": 198,
    "ioprio_set": 30, "memfd_create": 279, "clone": 220, "clone3": 435, "prlimit64": 261,
    "setpriority": 140, "sched_setaffinity": 122, "sched_setparam": 118,
    "sched_setscheduler": 119, "sched_setattr": 274, "ioctl": 29, "kill": 129, "tkill": 130,
    "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_send_signal": 424,
    "socketpair": 199, "bind": 200, "connect": 203, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7,
    "fcntl": 25, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55, "fchownat": 54,
    "utimensat": 88, "sync": 81, "syncfs": 267, "sync_file_range": 84, "io_setup": 0,
    "fadvise64": 223, "readahead": 213, "mincore": 232, "sysinfo": 179, "preadv2": 286,
    "pwritev2": 287, "rt_sigaction": 134,
}
# fmt: on
NUMBERS: Mapping[str, Mapping[str, int]] = {"x86_64": _X86_64, "aarch64": _AARCH64}

# A serving zygote needs none of these, so one filter covers all its forks.
# fmt: off
_DENIED = (
    # other memories
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    # other file systems and namespaces
    "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig",
    "fsmount", "fspick", "mount_setattr", "name_to_handle_at",
    "open_by_handle_at", "quotactl", "quotactl_fd", "fanotify_init",
    # memory that no limit on address space counts
    "memfd_create", "memfd_secret",
    # the page cache, and other state of the whole machine that a program could change
    "sync", "syncfs", "sync_file_range", "fadvise64", "readahead", "mincore", "sysinfo", "io_setup",
    # what would outlive a program
    "setxattr", "lsetxattr", "fsetxattr",
    "keyctl", "add_key", "request_key", "shmget", "semget", "msgget", "mq_open",
    # parts of the kernel with a history of holes
    "bpf", "userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter",
    "io_uring_register", "modify_ldt", "uselib",
    # administration of the machine
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot",
    "swapon", "swapoff", "acct", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
    "sethostname", "setdomainname", "personality", "syslog", "vhangup", "ioprio_set", "iopl",
    "ioperm",
    # other programs than the candidate
    "execve", "execveat",
    # the network; socketpair stays, for asyncio and multiprocessing
    "socket", "bind", "connect",
)
# fmt: on
# A process may change its own limits and scheduling (0 means itself), not those of others.
_OTHERS = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setparam": 0,
    "sched_setscheduler": 0,
    "sched_setattr": 0,
}


def supported() -> bool:
    """Tell whether the system-call numbers of this machine are known."""
    return os.uname().machine in NUMBERS


def zygote_filter(in_namespaces: bool) -> bytes:
    """Return the filter for a zygote and all its forks.

    `in_namespaces`: it runs in namespaces of its own and may make more, which takes a capability
    that no test has. clone3 fails with ENOSYS, so that the C library calls clone, whose flags a
    filter can read: it cannot follow pointers.
    """
    numbers = NUMBERS[os.uname().machine]
    rules = [_instruction(_LOAD, _NUMBER)]
    rules += _deny(_DENIED)
    rules += [_instruction(_JUMP_GE, _NEWER, 0, 1), _refuse(errno.ENOSYS)]
    rules += _when(numbers["clone3"], [_refuse(errno.ENOSYS)])
    clone = [
        _instruction(_LOAD, _ARGUMENTS),
        _instruction(_JUMP_SET, _NAMESPACES, 0, 1),
        _refuse(errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    rules += _when(numbers["clone"], clone)
    if in_namespaces:
        for name, position in (("unshare", 0), ("setns", 1)):
            rules += _when(numbers[name], _refuse_unless_argument(position, (_NEW_PID_NAMESPACE,)))
    else:
        rules += _deny(("unshare", "setns", "mount", "umount2"))
    # A process that ignores this signal would lose the usage of its children.
    ignored = [_instruction(_LOAD, _ARGUMENTS), _instruction(_JUMP_EQUAL, _SIGCHLD, 0, 1)]
    ignored += [_refuse(errno.EPERM), _instruction(_RETURN, _ALLOW)]
    rules += _when(numbers["rt_sigaction"], ignored)
    for name in ("preadv2", "pwritev2"):  # their flags reveal what is in the page cache
        rules += _when(numbers[name], _refuse_unless_argument(5, (0,)))
    for name, position in _OTHERS.items():
        rules += _when(numbers[name], _refuse_unless_argument(position, (0,)))
    # setpriority: argument 0 says that argument 1 is a process, rather than a group or a user
    process = [_instruction(_LOAD, _ARGUMENTS), _instruction(_JUMP_EQUAL, 0, 1, 0)]
    process += [_refuse(errno.EPERM), *_refuse_unless_argument(1, (0,))]
    rules += _when(numbers["setpriority"], process)
    rules += _when(numbers["socketpair"], _only_streams())
    for name, values in (("ioctl", _IOCTLS), ("fcntl", _FCNTLS)):
        body = [_instruction(_LOAD, _ARGUMENTS + 8)]
        for value in values:
            body += [_instruction(_JUMP_EQUAL, value, 0, 1), _refuse(errno.EPERM)]
        rules += _when(numbers[name], [*body, _instruction(_RETURN, _ALLOW)])
    return _complete(rules)


def no_fork_filter() -> bytes:
    """Return a further filter for a process that may have threads but may not fork."""
    numbers = NUMBERS[os.uname().machine]
    clone = [
        _instruction(_LOAD, _ARGUMENTS),
        _instruction(_JUMP_SET, _THREAD, 1, 0),
        _refuse(errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    rules = [_instruction(_LOAD, _NUMBER), *_when(numbers["clone"], clone)]
    return _complete(rules + _deny(("fork", "vfork")))


def program_filter(own_pid: int) -> bytes:
    """Return a further filter for a program that shares namespaces with others.

    It denies signals to any process but itself (`own_pid`) and its group, and changes of a file's
    mode, owner and times, which Landlock does not close.
    """
    numbers = NUMBERS[os.uname().machine]
    rules = [_instruction(_LOAD, _NUMBER)]
    rules += _when(numbers["kill"], _refuse_unless_argument(0, (0, own_pid)))
    rules += _when(numbers["tgkill"], _refuse_unless_argument(0, (own_pid,)))
    rules += _deny(("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"))
    rules += _deny(_ATTRIBUTES)
    return _complete(rules)


def install(program: bytes) -> None:
    """Put this process and its later children under a filter, which cannot be removed.

    Raises OSError when the kernel refuses; needs no_new_privs.
    """
    checked(installer(program)(), "prctl(PR_SET_SECCOMP)")


def installer(program: bytes):
    """Return a function that installs the filter; it returns -1 when the kernel refuses."""
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, padding, their address
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    arguments = PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(header), 0, 0
    prctl = libc().prctl
    return lambda kept=code: prctl(*arguments)


def _complete(rules: list[bytes]) -> bytes:
    """Put `rules` behind a check of the architecture, and allow all other calls."""
    machine = os.uname().machine
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, AUDIT_ARCH[machine], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
    ]
    if machine == "x86_64":
        program += [
            _instruction(_LOAD, _NUMBER),
            _instruction(_JUMP_GE, _X32, 0, 1),
            _refuse(errno.ENOSYS),
        ]
    return b"".join([*program, *rules, _instruction(_RETURN, _ALLOW)])


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """Run `body`, which returns, for this system call; its number must be loaded."""
    return [_instruction(_JUMP_EQUAL, number, 0, len(body)), *body]


def _deny(names: tuple[str, ...]) -> list[bytes]:
    """Refuse these calls, as far as this processor has them."""
    numbers = NUMBERS[os.uname().machine]
    known = [numbers[name] for name in names if name in numbers]
    return [part for number in known for part in _when(number, [_refuse(errno.EPERM)])]


def _refuse_unless_argument(position: int, values: tuple[int, ...]) -> list[bytes]:
    """Allow the call when its argument (lower half: process ids are ints) is one of `values`."""
    body = [_instruction(_LOAD, _ARGUMENTS + 8 * position)]
    for left, value in zip(range(len(values), 0, -1), values, strict=True):
        body.append(_instruction(_JUMP_EQUAL, value, left, 0))
    return [*body, _refuse(errno.EPERM), _instruction(_RETURN, _ALLOW)]


def _only_streams() -> list[bytes]:
    """Allow pairs of stream sockets: others can send to any address."""
    return [
        _instruction(_LOAD, _ARGUMENTS + 8),
        _instruction(_AND, 0xF),
        _instruction(_JUMP_EQUAL, 1, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _refuse(errno.EPERM),
    ]


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, _ERRNO | number)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
