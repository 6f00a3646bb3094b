"""The programs of a soak: honest, clumsy and hostile ones, drawn at random."""

import json
import random
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.judge import workload
from rlif_jax.data.formats.own import problem_from_own
from rlif_jax.grading.inputs import problem_from_sample
from rlif_jax.problem import Problem, Test, Verdict

CASES = Path(__file__).parents[2] / "tests" / "execution" / "cases"
# Those that harm nobody and may find out the right answer, which is whether something is possible;
# two that learn from the kernel that another test ran, by numbers and memory that all share; and
# one whose sockets hold less than the 512 MiB that programs have here.
MAY_PASS = {
    "posix_fork_children",
    "kill_parent_probe",
    "thread_survivor",
    "raw_fd_flood",
    "many_fds",
    "plant_module",
    "pipe_inode_counter",
    "page_cache",
    "socket_memory_counted",
}
# Bits of names under which hostile programs leave files; PLANTED is what the attacks write.
MARK = "rlif-soak"
PLANTED = ("leak.txt", "pwn.txt", "pwn2.txt", "sitecustomize.py")
ANYTHING_BUT_PASSED = frozenset(Verdict) - {Verdict.PASSED}


@dataclass(frozen=True)
class Item:
    """A program, and the verdicts that are right for it; an `honest` one must get one."""

    kind: str
    problem: Problem
    code: str
    right: frozenset[Verdict]
    honest: bool


CRASHING = (
    "1 / 0",
    "raise ValueError('no')",
    "[][0]",
    "import os\nos.abort()",
    "import os\nos._exit(1)",
    "import ctypes\nctypes.string_at(0)",
    "assert False",
    "open('missing')",
)
HANGING = (
    "while True: pass",
    "import time\ntime.sleep(1000)",
    "import threading\nthreading.Event().wait()",
    "import signal\nsignal.pause()",
    "import sys, time\nsys.stdout.close()\ntime.sleep(1000)",
)
MEMORY = (
    "b = bytearray(1 << 30)\nfor i in range(0, 1 << 30, 4096): b[i] = 1",
    "a = []\nwhile True: a.append(bytearray(1 << 20))",
    "s = 'x'\nwhile True: s += s",
    "import mmap\nkeep = [mmap.mmap(-1, 1 << 30) for _ in range(64)]",
    "import os\nfor _ in range(4): os.fork()\na = []\nwhile True: a.append(b'x' * 4096)",
)
FLOODS = (
    "while True: print('x' * 1000)",
    "import os\nwhile True: os.write(1, b'x' * 65536)",
    "import sys\nsys.stdout.write('1\\n' * 10**7)",
    "import os\nwhile True: os.write(2, b'x' * 65536)",
)
FORKS = (
    "import os\nwhile True: os.fork()",
    "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    "        time.sleep(1000)\n    os._exit(0)\nprint('gone')",
    "import os, signal, time\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except OSError: pass\nfor _ in range(8):\n    if os.fork() == 0:\n        os.setsid()\n"
    "        os.closerange(0, 100)\n        time.sleep(1000)",
)
# Writes wherever it may, in its folder and out of it, and leaves shared memory behind.
LITTER = f"""
import ctypes, os
for folder in ('.', '/tmp', '/var/tmp', '/dev/shm', '/run', '/root', os.path.expanduser('~')):
    name = os.path.join(folder, '{MARK}-%d' % os.getpid())
    for make in (lambda: open(name, 'w').write('x' * 10000), lambda: os.mkdir(name + 'd'),
                 lambda: os.symlink('/etc', name + 'l'), lambda: os.mkfifo(name + 'p'),
                 lambda: os.chmod(name, 0o777), lambda: os.chmod(name + 'd', 0)):
        try: make()
        except OSError: pass
c = ctypes.CDLL(None)
c.shmget(0, 4096, 0o1600); c.semget(0, 1, 0o1600); c.msgget(0, 0o1600)
c.mount(b'none', b'.', b'tmpfs', 0, None)
"""
HONEST_WRITER = (
    "import os\nfor n in range(20): open('f%d' % n, 'w').write('x' * n)\nos.mkdir('d')\n"
    "print(sum(os.path.getsize(n) for n in os.listdir('.') if n[0] == 'f'))"
)


def mix(seed: int) -> Iterator[Item]:
    """Items without end, the same ones for the same seed."""
    draw = random.Random(seed)
    right = [workload("stdin"), workload("functional")]
    wrong = [workload("stdin", wrong=True), workload("functional", wrong=True)]
    attacks, carried = _rows("attacks.jsonl"), _rows("carried.jsonl")
    makers: dict[Callable[[], Item], int] = {
        lambda: _solution(draw, "right", draw.choice(right), Verdict.PASSED): 45,
        lambda: _solution(draw, "wrong", draw.choice(wrong), Verdict.WRONG_ANSWER): 18,
        lambda: _program(draw, "crashing", CRASHING, Verdict.RUNTIME_ERROR): 6,
        lambda: _slow(draw): 5,
        lambda: _program(draw, "hanging", HANGING, Verdict.TIME_LIMIT, limit_s=0.2): 2,
        lambda: _program(draw, "memory bomb", MEMORY): 3,
        lambda: _program(draw, "output flood", FLOODS, limit_s=0.3): 3,
        lambda: _program(draw, "fork bomb", FORKS, limit_s=0.3): 3,
        lambda: _program(draw, "litter", (LITTER,)): 2,
        lambda: _writer(): 3,
        lambda: _attack(draw.choice(attacks)): 10,
        lambda: _carried(draw.choice(carried)): 10,
    }
    while True:
        yield draw.choices(list(makers), list(makers.values()))[0]()


def _rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (CASES / name).read_text().splitlines()]


def _problem(name: str, answer: str, limit_s: float = 1.0) -> Problem:
    return Problem(name, "", (Test("1\n", answer, "stdin"),), time_limit_s=limit_s)


def _solution(draw: random.Random, kind: str, work, verdict: Verdict) -> Item:
    index = draw.randrange(len(work.programs))
    problem, code = work.problems[index], work.programs[index]
    return Item(f"{kind}, {problem.tests[0].kind}", problem, code, frozenset({verdict}), True)


def _program(
    draw: random.Random,
    kind: str,
    programs: tuple[str, ...],
    verdict: Verdict | None = None,
    limit_s: float = 1.0,
) -> Item:
    """A program that fails; without a verdict it is hostile, and any failure is right.

    A third of them fail in a function, called for the second time.
    """
    answer = f'"{draw.getrandbits(64):x}"'  # nothing in the program or its input says it
    right = ANYTHING_BUT_PASSED if verdict is None else frozenset({verdict})
    problem, code = _problem(kind, answer, limit_s), draw.choice(programs)
    if draw.random() < 1 / 3:
        tests = (Test("0", "0", "functional"), Test("1", answer, "functional"))
        problem = Problem(kind, "", tests, entry_point="f", time_limit_s=limit_s)
        code = f"def f(x):\n    if x == 0: return 0\n{textwrap.indent(code, '    ')}"
    return Item(kind, problem, code, right, verdict is not None)


def _slow(draw: random.Random) -> Item:
    seconds = draw.uniform(0.05, 0.4)
    code = (
        "import time\nstart = time.process_time()\n"
        f"while time.process_time() - start < {seconds}: pass\nprint(int(input()) + 1)"
    )
    return Item("slow", _problem("slow", "2"), code, frozenset({Verdict.PASSED}), True)


def _writer() -> Item:
    right = frozenset({Verdict.PASSED})
    return Item("file writer", _problem("file writer", "190"), HONEST_WRITER, right, True)


def _attack(row: dict) -> Item:
    return _hostile("attack", problem_from_sample(row), row["code"])


def _carried(row: dict) -> Item:
    """A row of programs that would pass a test because of another, among which some are honest."""
    problem = row["problem"]
    read = problem_from_sample if "input_output" in problem else problem_from_own
    if row["expected_passed"]:
        right = frozenset({Verdict.PASSED})
        return Item("beside those that carry over", read(problem), row["code"], right, True)
    return _hostile("carries over", read(problem), row["code"])


def _hostile(kind: str, problem: Problem, code: str) -> Item:
    right = frozenset(Verdict) if problem.id in MAY_PASS else ANYTHING_BUT_PASSED
    return Item(kind, problem, code, right, False)
