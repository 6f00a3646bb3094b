"""The processes of a judge, and programs that only echo."""

import contextlib
import json
import os
import time
from pathlib import Path

from rlif_jax.execution.pool import Judge
from support.execution.host import below
from support.execution.judging import stdin_problem

ECHO = stdin_problem(("7", "7"))
ECHO_CODE = "print(input())"
SLOW_ECHO = "import time\ntime.sleep(1)\nprint(input())"


def judge_processes(judge_pid: int | None = None) -> set[int]:
    """Living processes of a judge in this process, or in another: zygotes and their forks.

    All keep the command line of the zygote.
    """
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if entry.name.isdigit():
                words = (entry / "cmdline").read_text().split("\0")
                ours = len(words) > 2 and words[-3].endswith("/zygote.py")
                if ours and json.loads(words[-2])["judge_pid"] == (judge_pid or os.getpid()):
                    found.add(int(entry.name))
    return found


def first_process(judge: Judge, worker: int = 0) -> int:
    """The zygote that forks loaders: the first of its pid namespace, where there is one."""
    outer = judge._slots[worker].worker.pid
    if judge.isolation["namespaces"].startswith("none"):
        return outer
    (first,) = [int(pid) for pid in children(outer)]
    return first


def loader(judge: Judge) -> int:
    """The loader of the program that runs on the only worker."""
    (found,) = [int(pid) for pid in children(first_process(judge))]
    return found


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def await_program(judge: Judge, count: int = 1) -> None:
    """Wait until a program has so many processes, beside the loader that it has as well."""
    deadline = time.monotonic() + 60
    while len(below(first_process(judge))) < count + 1:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ends(pids: set[int]) -> bool:
    """Whether these processes end soon."""
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() and not is_dead(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_dead(pid: int) -> bool:
    """Whether the process only waits to be collected, or is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True
