"""What /proc tells of processes, counted in real ones: those that this process has started."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from support.execution.host import settles

from rlif_jax.execution.sandbox import processes
from rlif_jax.execution.sandbox.processes import (
    LIMITS,
    PROCESSES,
    below,
    children,
    exceeded_limit,
    used_s,
)

MIB = 1 << 20


@pytest.fixture(scope="module")
def proc():
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@contextlib.contextmanager
def started(code: str):
    """Run a program until it has said a word; its id. It ends with all its children."""
    command = [sys.executable, "-S", "-E", "-c", f"import os, sys, time\n{code}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as program:
        try:
            assert program.stdout.read(5) == b"ready"
            yield program.pid
        finally:
            os.killpg(program.pid, signal.SIGKILL)


READY = "sys.stdout.write('ready'); sys.stdout.flush()\ntime.sleep(600)"


def test_all_below_are_found_and_only_they(proc):
    """A child, its child, and one that has ended and was not waited for."""
    code = (
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n    if os.fork() == 0: os.write(w, b'x'); time.sleep(600)\n"
        "    time.sleep(600)\n"
        "if os.fork() == 0: os._exit(0)\n"
        f"os.read(r, 1)\ntime.sleep(0.1)\n{READY}"
    )
    with started(code) as pid:
        found = below(proc, pid)
        assert len(found) == 3 and pid not in found
        assert sorted(lives for _, lives in found.values()) == [False, True, True]
        direct = children(proc, pid)
        assert len(direct) == 2 and set(direct) < set(found)
        (grandchild,) = set(found) - set(direct)
        assert [below(proc, child) for child in direct if below(proc, child)] == [
            {grandchild: found[grandchild]}
        ]
        assert set(below(proc, os.getpid())) >= {pid, *found}
    assert settles(lambda: below(proc, pid) == {})
    assert settles(lambda: children(proc, pid) == [])


def test_a_name_that_looks_like_the_rest_of_the_line_misleads_nobody(proc):
    code = (
        "import ctypes\nif os.fork() == 0:\n"
        "    ctypes.CDLL(None).prctl(15, b') Z 1 1 (\\n', 0, 0, 0)\n"
        f"    {READY.replace(chr(10), '; ')}\ntime.sleep(600)"
    )
    with started(code) as pid:
        (found,) = below(proc, pid).items()
        assert found[1][1]
        assert children(proc, pid) == [found[0]]


def test_cpu_time_is_that_of_all_below_and_of_the_dead_that_they_waited_for(proc):
    work = "while time.process_time() < {}: pass"
    code = (
        f"{work.format(0.5)}\n"  # its own does not count
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        f"    if os.fork() == 0:\n        {work.format(0.3)}\n        os._exit(0)\n"
        f"    os.wait()\n    {work.format(0.2)}\n    os.write(w, b'x'); time.sleep(600)\n"
        f"if os.fork() == 0:\n    {work.format(0.1)}\n    os._exit(0)\n"
        f"os.read(r, 1); time.sleep(0.2)\n{READY}"
    )
    with started(code) as pid:
        assert settles(lambda: used_s(proc, pid) >= 0.55)
        used = used_s(proc, pid)
        assert used < 0.5 + 0.3 + 0.2 + 0.1
        assert exceeded_limit(proc, pid, 1 << 40, used - 0.05) == LIMITS.index("cpu")
        assert exceeded_limit(proc, pid, 1 << 40, used + 0.05) == LIMITS.index("")
    assert settles(lambda: used_s(proc, pid) == 0.0)


def test_memory_is_that_of_all_below_beyond_what_the_loader_has(proc):
    """Two children hold 40 MiB each, and share 30 with the process that has forked them."""
    code = (
        "shared, (r, w) = bytearray(b'x') * (30 << 20), os.pipe()\n"
        "for _ in range(2):\n    if os.fork() == 0:\n        own = bytearray(b'x') * (40 << 20)\n"
        "        os.write(w, b'x'); time.sleep(600)\n"
        f"for _ in range(2): os.read(r, 1)\n{READY}"
    )
    with started(code) as pid:
        assert exceeded_limit(proc, pid, 70 * MIB, 9.0) == LIMITS.index("memory")
        assert exceeded_limit(proc, pid, 100 * MIB, 9.0) == LIMITS.index("")
        (first, _) = children(proc, pid)
        own = processes.resident(proc, first) - processes.resident(proc, pid)
        assert 30 * MIB < own < 45 * MIB
    assert settles(lambda: processes.resident(proc, first) == 0)


def test_processes_are_counted(proc):
    code = f"for _ in range({{}}):\n    if os.fork() == 0: time.sleep(600)\n{READY}"
    for count, limit in ((PROCESSES, ""), (PROCESSES + 1, "processes")):
        with started(code.format(count)) as pid:
            assert len(children(proc, pid)) == count
            assert exceeded_limit(proc, pid, 1 << 40, 9.0) == LIMITS.index(limit)


def test_descriptors_count_as_full_sockets(proc):
    """As many as a process has places for, which double as it opens more."""
    code = (
        "import resource, socket\n"
        "if os.fork() == 0:\n    kept = [os.dup(0) for _ in range({})]\n"
        f"    {READY.replace(chr(10), '; ')}\ntime.sleep(600)"
    )
    counted = {}
    for count in (10, 100):
        with started(code.format(count)) as pid:
            (child,) = children(proc, pid)
            counted[count] = processes.descriptor_slots(proc, child)
            more = max(0, counted[count] - processes.FREE_DESCRIPTORS) * processes.SOCKET_BYTES
            assert exceeded_limit(proc, pid, more + 20 * MIB, 9.0) == LIMITS.index("")
            if more:
                assert exceeded_limit(proc, pid, more - MIB, 9.0) == LIMITS.index("memory")
    assert counted[10] == 64 < 100 < counted[100]
    assert settles(lambda: processes.descriptor_slots(proc, child) == 0)


def test_what_is_gone_is_nothing(proc):
    """A process may end between two looks at it."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert below(proc, child) == {}
    assert processes.resident(proc, child) == processes.descriptor_slots(proc, child) == 0
    with pytest.raises(OSError):
        processes.stat_fields(proc, child)
    assert exceeded_limit(proc, child, 0, 0.0) == LIMITS.index("")
    own = processes.stat_fields(proc, os.getpid())
    assert int(own[1]) == os.getppid()
