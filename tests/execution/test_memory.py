"""Memory: what contest programs do to have a deep stack, and that no more is used all the same."""

import sys

import pytest
from support.execution.judging import assert_problem, function_problem, stdin_problem

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

MEMORY = Verdict.MEMORY_LIMIT
MIB = 1 << 20
ROUND = """import sys, threading
def main():
    def depth(n): return n and 1 + depth(n - 1)
    print(depth(int(sys.stdin.readline())) + 1)
"""
THREAD = "thread = threading.Thread(target=main)\nthread.start()\nthread.join()"
IN_A_THREAD = f"{ROUND}sys.setrecursionlimit(10**6)\nthreading.stack_size({{}})\n{THREAD}"
RLIMIT = (
    "import resource\nfrom resource import *\nresource.setrlimit({})\n{}print(int(input()) + 1)"
)
UNLIMITED = "import resource\nsys.setrecursionlimit(1 << 30)\nresource.setrlimit({})\n"
IDIOMS = {
    **{f"stack of {n} MiB": IN_A_THREAD.format(n * MIB) for n in (64, 256, 512, 1024)},
    "stack of 10**8": IN_A_THREAD.format(10**8),
    "no stack size": f"{ROUND}sys.setrecursionlimit(10**6)\n{THREAD}",
    "unlimited": RLIMIT.format("RLIMIT_STACK, (RLIM_INFINITY, RLIM_INFINITY)", ""),
    "unlimited hard": RLIMIT.format("RLIMIT_STACK, [1 << 28, -1]", ""),
    "finite": RLIMIT.format("RLIMIT_STACK, (1 << 29, 1 << 29)", ""),
    "as it may be": RLIMIT.format("RLIMIT_STACK, (getrlimit(RLIMIT_STACK)[1],) * 2", ""),
    "data": RLIMIT.format("RLIMIT_DATA, (RLIM_INFINITY, RLIM_INFINITY)", ""),
    "less": RLIMIT.format("RLIMIT_AS, (1 << 28, 1 << 28)", ""),
    "both": IN_A_THREAD.format(512 * MIB).replace(
        "sys.setrec", UNLIMITED.format("resource.RLIMIT_STACK, (-1, -1)") + "sys.setrec"
    ),
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(48) as pool:\n"
        "    print(sum(pool.map(len, [bytes(200_000)] * 48)) // 9_600_000 + int(input()))"
    ),
    "many threads": (
        "import threading, time\nseen = []\ndef work():\n"
        "    seen.append(bytearray(300_000)); time.sleep(0.05)\n"
        "threads = [threading.Thread(target=work) for _ in range(48)]\n"
        "for t in threads: t.start()\nfor t in threads: t.join()\n"
        "print(int(input()) + (len(seen) == 48))"
    ),
    "quit": "print(int(input()) + 1)\nquit()",
    "exit in a thread": f"{ROUND}def run(): main(); exit()\n{THREAD.replace('main', 'run')}",
}


@pytest.fixture(scope="module")
def default():
    """A judge with the limits of training."""
    with Judge(config.Execution()) as judge:
        yield judge


@pytest.mark.parametrize("name", IDIOMS)
def test_idioms_of_contest_programs_work_at_the_default_limits(default, name):
    outcome = default.submit(
        stdin_problem(("900\n", "901\n"), ("5\n", "6\n")), IDIOMS[name]
    ).result()
    assert outcome.passed, outcome
    wrong = default.submit(stdin_problem(("900\n", "902\n")), IDIOMS[name]).result()
    assert wrong.verdict is Verdict.WRONG_ANSWER, wrong


def test_a_deep_recursion_in_a_thread_has_the_stack_that_it_asks_for(default):
    """Through C, as a cached function recurses, so that the stack is used."""
    code = (
        "import functools, sys, threading\nsys.setrecursionlimit(10**6)\n"
        "threading.stack_size(512 << 20)\n@functools.lru_cache(None)\n"
        "def depth(n): return n and 1 + depth(n - 1)\n"
        f"def main(): print(depth(int(input())))\n{THREAD}"
    )
    # since Python 3.12 the interpreter bounds recursion through C by itself
    depth = "60000" if sys.version_info < (3, 12) else "3000"
    assert default.submit(stdin_problem((depth, depth)), code).result().passed


# Memory that is used at once, and given back before anybody counts it.
TOUCH = """import mmap, os, threading
def touch(mib):
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, mib << 20, flags=flags).close()
"""
PLACES = {
    "program": "touch({})\n",
    "thread": (
        "threading.stack_size(1 << 26)\n"
        "t = threading.Thread(target=touch, args=({},))\nt.start()\nt.join()\n"
    ),
    "child": "if os.fork() == 0:\n    touch({})\n    os._exit(0)\nos.wait()\n",
    "orphan": (
        "r, w = os.pipe()\nif os.fork() == 0:\n    touch({})\n    os.write(w, b'x')\n"
        "    os._exit(0)\nos.read(r, 1)\n"
    ),
}


@pytest.fixture(scope="module")
def small():
    """A judge with so small a limit that a program is over it for an instant only."""
    with Judge(config.Execution(workers=2, memory_mb=64)) as judge:
        yield judge


AMOUNTS = ((20, Verdict.PASSED), (80, MEMORY))  # in MiB


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("stack", ["", "threading.stack_size(1 << 28)\n"])
def test_threads_give_room_and_no_memory(small, place, stack):
    """A stack that is not used does not count."""
    for mib, verdict in AMOUNTS:
        code = f"{TOUCH}{stack}{PLACES[place].format(mib)}print(input())"
        outcome = small.submit(stdin_problem(("5", "5")), code).result()
        assert outcome.verdict is verdict, outcome


@pytest.mark.parametrize("place", ["program", "thread"])
def test_nor_do_they_for_a_function(small, place):
    body = "".join(f"    {line}\n" for line in PLACES[place].splitlines())
    for mib, verdict in AMOUNTS:
        code = f"{TOUCH}def f(x):\n{body.format(mib)}    return x"
        for problem in (function_problem("f", ("5", "5")), assert_problem("f", "assert f(5) == 5")):
            outcome = small.submit(problem, code).result()
            assert outcome.verdict is verdict, outcome


def test_without_threads_the_address_space_is_the_limit(run):
    """For good, and whatever the program calls them."""
    code = (
        "import resource\nprint([n >> 20 for n in resource.getrlimit(resource.RLIMIT_AS)])\n"
        "try: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "except ValueError: print('refused')\n"
    )
    assert run(stdin_problem(("", "[256, 256]\nrefused")), code).passed
    hidden = f"{code}__import__('thr' + 'eading').stack_size(1 << 28)"
    assert run(stdin_problem(("", "[256, 256]\nrefused")), hidden).passed
    threads = "import threading\n" + code.replace("1 << 30", "1 << 31")
    assert run(stdin_problem(("", "[1280, 1280]\nrefused")), threads).passed
    assert run(stdin_problem(("", "")), "x = bytearray(300 << 20)").verdict is MEMORY


def test_reserved_memory_is_not_used_memory(run):
    reserved = "import mmap, threading\nm = mmap.mmap(-1, 700 << 20, flags=mmap.MAP_PRIVATE)\n"
    assert run(stdin_problem(("5", "5")), f"{reserved}print(input())").passed
    assert run(stdin_problem(("5", "5")), f"{reserved}bytearray(1 << 40)").verdict is MEMORY
