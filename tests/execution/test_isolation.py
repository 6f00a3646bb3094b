"""The judge on machines that allow more or less of a sandbox, and what a program can reach."""

import contextlib
import json
import os
import platform
import tempfile
from pathlib import Path

import pytest
from support.execution.confinement import LEVELS, ROOT, run_at
from support.execution.judging import stdin_problem
from support.execution.official import read_rows
from support.execution.probes import PROBES

from rlif_jax import config
from rlif_jax.execution.pool import Judge, weaknesses
from rlif_jax.execution.sandbox import seccomp
from rlif_jax.execution.sandbox.paths import package_folders, readable_paths
from rlif_jax.problem import Verdict

ATTACKS = {
    name: row
    for name, row in read_rows("attacks.jsonl").items()
    if row["category"] in ("reward_hack", "escape", "process", "host")
}
# They only ask whether something is possible, print the right answer and harm nobody.
HARMLESS = {"posix_fork_children", "kill_parent_probe", "plant_module", "thread_survivor"}


def row(name: str, inputs: list[str], outputs: list[str], entry_point: str | None = None) -> dict:
    """A problem as `official.problem_of` reads it."""
    sample = {"inputs": inputs, "outputs": outputs, "fn_name": entry_point}
    return {"id": name, "input_output": json.dumps(sample), "time_limit_s": 6}


ASKED = [
    ["stdin", row("stdin", ["3", "5"], ["6", "10"]), "print(2 * int(input()))", False],
    [
        "numpy",
        row("stdin", ["3"], ["6"]),
        "import numpy\nprint(numpy.full(2, input(), int).sum())",
        False,
    ],
    ["function", row("f", ["3", "[1]"], ["6", "[1, 1]"], "f"), "def f(x): return 2 * x", False],
]
FORKS = "import os, time\nfor n in range(3):\n    if os.fork() == 0: {}"
BURNS = FORKS.format("\n        while True: pass")
HOLDS = FORKS.format("kept = bytearray(b'x') * (250 << 20); time.sleep(60)")
INDENTED = BURNS.replace("\n", "\n    ")
EXCESS = {  # of children, in CPU time or memory, while the program itself does nothing
    "cpu": [row("cpu", ["7"], ["7"]), f"{BURNS}\ntime.sleep(60)", "time_limit"],
    "cpu of a function": [
        row("cpu of a function", ["7"], ["7"], "f"),
        f"def f(x):\n    {INDENTED}\n    time.sleep(60)\n    return x",
        "time_limit",
    ],
    "memory": [row("memory", ["7"], ["7"]), f"{HOLDS}\ntime.sleep(60)", "memory_limit"],
}
EXCEEDING = [[n, {**asked, "time_limit_s": 1}, c, False] for n, (asked, c, _) in EXCESS.items()]
PROBED = [[name, row(name, [""], ["end"]), code, True] for name, code in PROBES.items()]
ATTACKED = [[name, attack, attack["code"], False] for name, attack in ATTACKS.items()]


@contextlib.contextmanager
def workplace(mode: int):
    """A folder to work in, with a file in it, and one for temporary files; others' is `mode`."""
    with tempfile.TemporaryDirectory(prefix="judge-levels-") as name:
        folder = Path(name)
        for inner in ("here", "tmp"):
            (folder / inner).mkdir()
        (folder / "here" / "private.txt").write_text("nobody's business")
        folder.chmod(mode)
        yield folder


@pytest.fixture(scope="module")
def session():
    """A function that judges all programs at a level, once, and returns what was seen."""
    seen: dict[str, dict] = {}

    def judged(level: str) -> dict:
        if level not in seen:
            with workplace(0o755) as folder:
                programs = [*ASKED, *PROBED, *EXCEEDING, *ATTACKED]
                seen[level] = run_at(level, folder, {"allow": True, "programs": programs})
        assert "error" not in seen[level], seen[level]["error"]
        return seen[level]

    return judged


WITH_NAMESPACES = {
    "process_ids": "restart for each test",
    "namespaces": "user, pid, network, mount, IPC, UTS",
    "files": "a read-only root with one folder in memory",
    "system_calls": "filtered",
    "network": "none",
}
WITHOUT = {
    "namespaces": "none ([Errno 1] unshare(0x10000000): Operation not permitted)",
    "files": "Landlock",
    "system_calls": "filtered",
    "network": "none",
}


@pytest.mark.parametrize(
    "level, isolation",
    [
        ("as it is", WITH_NAMESPACES | {"user": "separate" if ROOT else "own namespace"}),
        ("one user", WITH_NAMESPACES | {"user": "own namespace"}),
        ("a user", WITH_NAMESPACES | {"user": "own namespace"}),
        ("no namespaces", WITHOUT | {"user": "separate" if ROOT else "the judge's"}),
        ("a user, no namespaces", WITHOUT | {"user": "the judge's"}),
    ],
)
def test_the_level_is_reported(session, level, isolation):
    assert session(level)["isolation"] == isolation
    shared = isolation["user"] == "the judge's"
    why = ["they would run as the user of this process"]
    assert session(level)["weaknesses"] == (why if shared else [])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", [name for name, *_ in ASKED])
def test_right_programs_pass_at_every_level(session, level, name):
    seen = session(level)["programs"][name]
    assert (seen["verdict"], seen["changed"]) == ("passed", {}), seen


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", PROBES)
def test_nothing_is_in_reach_at_any_level(session, level, name):
    seen = session(level)["programs"][name]
    assert seen["verdict"] == "passed", seen["detail"]
    assert seen["changed"] == {}
    assert seen["companion"] == [True]
    assert seen["after"] == [True, False] * 2


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", EXCESS)
def test_children_are_counted_at_every_level(session, level, name):
    seen = session(level)["programs"][name]
    assert (seen["verdict"], seen["changed"]) == (EXCESS[name][2], {}), seen


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_succeeds_at_any_level(session, level, name):
    seen = session(level)["programs"][name]
    assert seen["verdict"] != "passed" or name in HARMLESS, seen
    assert seen["changed"] == {}
    assert seen["after"] == [True, False] * 2


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_left_at_any_level(session, level):
    assert session(level)["left"] == {"processes": [], "files": [], "descriptors": 0}


def test_too_little_is_refused():
    """An ordinary user without namespaces: programs could signal the judge."""
    with workplace(0o755) as folder:
        seen = run_at("a user, no namespaces", folder, {"allow": False, "programs": ASKED})
    assert seen["refused"].startswith(
        "This machine cannot sandbox candidate programs: they would run as the user of this "
        "process ("
    )
    assert "namespaces: none ([Errno 1] unshare(0x10000000): Operation not perm" in seen["refused"]
    assert "files: Landlock" in seen["refused"]
    assert "--execution.allow-weak-isolation" in seen["refused"]
    assert seen["left"] == {"processes": [], "files": [], "descriptors": 0}


@pytest.mark.parametrize("level", LEVELS[:4] if ROOT else LEVELS[:3])
def test_enough_is_not_refused(level):
    with workplace(0o755) as folder:
        seen = run_at(level, folder, {"allow": False, "programs": ASKED})
    assert "programs" in seen, seen
    assert [seen["programs"][name]["verdict"] for name, *_ in ASKED] == ["passed"] * 3


@pytest.mark.parametrize("level", LEVELS)
def test_a_private_temporary_folder_opens_no_files(level):
    """Another user may not enter it: programs are sandboxed all the same, or refused."""
    with workplace(0o700) as folder:
        seen = run_at(level, folder, {"allow": False, "programs": [*ASKED, *PROBED]})
    assert "error" not in seen, seen["error"]
    if "refused" not in seen:
        assert {n: p["verdict"] for n, p in seen["programs"].items() if p["detail"]} == {}
    else:
        assert "no namespaces" in level
    assert seen["left"] == {"processes": [], "files": [], "descriptors": 0}


GOOD = WITH_NAMESPACES | {"user": "own namespace"}


@pytest.mark.parametrize(
    "found, why",
    [
        ({}, []),
        ({"namespaces": "none (x)", "user": "separate", "files": "Landlock"}, []),
        ({"user": "the judge's"}, ["user of this process"]),
        ({"system_calls": "unfiltered (x)"}, ["system calls would be unfiltered (x)"]),
        ({"network": "open"}, ["network"]),
        ({"files": "open (x)"}, ["files"]),
        ({"user": "the judge's", "network": "open"}, ["user of this process", "network"]),
    ],
)
def test_what_is_weak(found, why):
    lacking = weaknesses(GOOD | found)
    assert len(lacking) == len(why)
    assert all(part in text for part, text in zip(why, lacking, strict=True))


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


def test_the_root_shows_little_and_only_one_folder_can_be_written():
    package = Path(seccomp.__file__).parents[1]
    hidden = ["/home", "/etc/passwd", "/etc/shadow", "/sys", "/var", "/dev/pts", "/dev/mem"]
    hidden += [str(package), str(package.parent), str(Path(__file__)), os.getcwd()]
    shown = {"proc", "outer", "dev", "tmp", "python", "box"}
    shown |= {Path(place).parts[1] for place in readable_paths()}
    packages = package_folders(readable_paths())
    assert packages
    code = (
        "import os\n"
        f"for path in {hidden!r}:\n"
        "    if os.path.lexists(path): print('shown', path)\n"
        f"for name in set(os.listdir('/')) - {shown!r}: print('unexpected', name)\n"
        "print(sorted(os.listdir('/proc')), os.listdir('/outer'))\n"
        f"for path in {packages!r}:\n"
        "    if os.path.lexists(path) and os.listdir(path): print('packages', path)\n"
        "for base, folders, files in os.walk('/'):\n"
        "    if base == '/': folders.remove('proc')\n"
        "    if os.access(base, os.W_OK): print('own' if base == os.getcwd() else base)\n"
        "    for file in files:\n"
        "        path = base + '/' + file\n"
        "        if os.path.islink(path) or path.startswith('/dev/'): continue\n"
        "        if os.access(path, os.W_OK): print(path)\n"
    )
    expected = "['2', 'self', 'thread-self'] []\nown"
    with Judge(config.Execution(workers=1, time_limit_s=30.0)) as judge:
        assert judge.isolation["files"] == WITH_NAMESPACES["files"]
        outcome = judge.submit(stdin_problem(("", expected)), code).result(timeout=200)
    assert outcome.passed, outcome.detail
