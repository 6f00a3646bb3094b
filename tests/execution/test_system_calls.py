"""System calls that a program is refused, by their number or by their arguments."""

import platform

import pytest
from support.execution.judging import stdin_problem

from rlif_jax.execution.sandbox import seccomp
from rlif_jax.problem import Verdict

# Arguments with which each call would succeed, or fail otherwise, where it is not refused.
REFUSED = {
    "ptrace": "0, 0, 0, 0",
    "unshare": "0",
    "setns": "-1, 0",
    "keyctl": "0, -3, 1",
    "shmget": "0, 4096, 0o600",
    "memfd_create": "b'x', 0",
    "io_uring_setup": "0, 0",
    "bpf": "99, 0, 0",
    "userfaultfd": "-1",
    "execve": "b'/nowhere', 0, 0",
    "execveat": "-100, b'/nowhere', 0, 0, 0",
    "socket": "1, 1, 0",
    "process_vm_readv": "os.getpid(), 0, 0, 0, 0, 0",
    "pidfd_getfd": "-1, 0, 0",
    "prlimit64": "1, 7, 0, 0",
    "setpriority": "2, 0, 0",
    "sched_setscheduler": "1, 0, 0",
    # CLONE_THREAD without CLONE_SIGHAND, so that it cannot succeed either
    "clone": "0x10000000 | 0x10000, 0, 0, 0, 0",
    "personality": "-1",
    "chroot": "b'/nowhere'",
    "perf_event_open": "0, 0, -1, -1, 0",
    "name_to_handle_at": "-100, b'/', 0, 0, 0",
    # what is in memory of files, which other programs read, and how much there is
    "sync": "",
    "syncfs": "1",
    "sync_file_range": "1, 0, 0, 0",
    "fadvise64": "library, 0, 0, 3",
    "readahead": "library, 0, 4096",
    "mincore": "0, 0, 0",
    "sysinfo": "room",
    "preadv2": "library, vector, 1, 0, 0, 8",  # RWF_NOWAIT
    "pwritev2": "1, vector, 1, 0, 0, 2",  # RWF_DSYNC
    "io_setup": "1, room",
    # what the next program could find of this one
    "fcntl": "own, 1036, room",  # F_SET_RW_HINT
    # a handler for SIGCHLD: where it is ignored, the usage of a child is lost
    "rt_sigaction": "17, 0, room, 8",
}
# A loader makes these calls, so that they are let through: they take a capability that no test has.
PRIVILEGED = {
    "mount": [
        "b'none', b'/box', b'tmpfs', 0, 0",
        "b'none', b'/outer', b'tmpfs', 0, 0",
        "b'proc', b'/proc', b'proc', 0, 0",
        "b'/', b'/box', 0, 4096, 0",
    ],
    "umount2": ["b'/box', 2", "b'/outer', 2", "b'/proc', 2", "b'/', 2"],
    "unshare": ["0x20000000", "0x10000000", "0x20000", "0x7E020000"],
    "setns": ["space, 0x20000000", "space, 0"],
}


_CALL = """import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
library, space = os.open(os.__file__, os.O_RDONLY), os.open("/proc/self/ns/pid", os.O_RDONLY)
own = os.open("own", os.O_CREAT)
room = ctypes.create_string_buffer(256)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(room), 8)
"""


def system_call(name: str, arguments: str) -> str:
    """A program that makes a system call and prints what comes of it."""
    number = seccomp.NUMBERS[platform.machine()][name]
    call = f"libc.syscall({', '.join(filter(None, [str(number), arguments]))})"
    return f"{_CALL}ctypes.set_errno(0)\nprint({call}, errno.errorcode.get(ctypes.get_errno()))"


@pytest.mark.parametrize("name, arguments", [*REFUSED.items(), ("clone3", "0, 0")])
def test_a_system_call_is_refused(run, name, arguments):
    expected = "-1 ENOSYS" if name == "clone3" else "-1 EPERM"
    outcome = run(stdin_problem(("", expected)), system_call(name, arguments))
    assert outcome.passed, outcome.detail


@pytest.mark.parametrize("name, arguments", [(n, a) for n in PRIVILEGED for a in PRIVILEGED[n]])
def test_a_call_of_loaders_takes_a_capability(run, name, arguments):
    outcome = run(stdin_problem(("", "-1 EPERM")), system_call(name, arguments))
    assert outcome.passed, outcome.detail


@pytest.mark.parametrize(
    "name, arguments, result",
    [
        ("preadv2", "library, vector, 1, 0, 0, 0", 8),
        ("pwritev2", "2, vector, 1, 0, 0, 0", 8),
        ("rt_sigaction", "10, 0, room, 8", 0),
        ("fcntl", "library, 1, 0", 1),  # F_GETFD: closed on exec
    ],
)
def test_a_call_is_refused_by_its_arguments_only(run, name, arguments, result):
    outcome = run(stdin_problem(("", f"{result} None")), system_call(name, arguments))
    assert outcome.passed, outcome.detail


def test_the_end_of_a_child_cannot_be_ignored(run):
    """Where SIGCHLD is ignored the kernel drops what a child has used."""
    code = (
        "import signal\nfor way in (signal.SIG_IGN, signal.SIG_DFL, print):\n"
        "    try: print(signal.signal(signal.SIGCHLD, way))\n"
        "    except PermissionError: print('refused')"
    )
    assert run(stdin_problem(("", "refused\n" * 3)), code).passed


def test_other_interfaces_of_the_kernel_are_closed(run):
    """The calls of x32 and, on x86, of 32 bits, whose numbers are not those of the filter."""
    code = (
        "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.syscall(0x40000000 | 39), errno.errorcode[ctypes.get_errno()])"
    )
    assert run(stdin_problem(("", "-1 ENOSYS")), code).passed
    code = (
        "import ctypes, mmap\npage = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))\n"  # getpid of 32 bits: int 0x80
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "print(call())"
    )
    outcome = run(stdin_problem(("", "x")), code)
    assert outcome.verdict is Verdict.RUNTIME_ERROR
    assert outcome.detail.startswith("test 1: killed by SIG")
