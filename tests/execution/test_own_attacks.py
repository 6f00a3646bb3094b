"""Attacks on this judge's own design: each gets the right verdict, and nobody feels it after."""

import ctypes
import gc
import os

import pytest
from support.execution.host import at_rest, below, descriptors, settles
from support.execution.judging import function_problem, stdin_problem
from support.execution.memory_search import MARKS, search_for
from support.execution.own_attacks import CHANNEL, ECHO, FUNCTION, SECRET
from support.execution.own_harm import HARM
from support.execution.own_messages import MESSAGES

from rlif_jax import config
from rlif_jax.execution.pool import Judge

PR_SET_CHILD_SUBREAPER = 36
ATTACKS = CHANNEL | {f"message_in_{name}": attack for name, attack in MESSAGES.items()} | HARM
DOUBLE = function_problem("f", ("[1]", "[1, 1]"), ('"a"', '"aa"'))


@pytest.fixture(scope="module")
def judge():
    """A judge of one worker; what outlives its parents becomes a child of this process."""
    prctl = ctypes.CDLL(None).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    gc.collect()  # what earlier tests left to it
    before = len(below(os.getpid()))
    execution = config.Execution(workers=1, time_limit_s=0.5, memory_mb=256, output_kb=64)
    with Judge(execution, run_all_tests=True) as judge:
        assert judge.submit(ECHO, "print(input())").result(timeout=120).passed
        yield judge
    assert settles(lambda: len(below(os.getpid())) <= before), below(os.getpid())
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_attacks_are_many():
    assert len(ATTACKS) >= 30


@pytest.mark.parametrize("name", ATTACKS)
def test_own_attack(judge, name):
    attack = ATTACKS[name]
    at_rest(judge)
    processes, opened = len(below(os.getpid())), descriptors()
    outcome = judge.submit(attack.problem, attack.code).result(timeout=120)
    assert outcome.verdict in attack.verdicts, f"{attack.what}: {outcome}"
    if attack.problem in (SECRET, FUNCTION):
        assert not any(result == "passed" for result in outcome.results)
    outcome.detail.encode("utf-8")  # it can be written to a log
    for problem, code in (
        (ECHO, "import os\nassert os.listdir('.') == []\nprint(input())"),
        (DOUBLE, "def f(x): return x + x"),
    ):
        after = judge.submit(problem, code).result(timeout=120)
        assert after.passed, after
    assert judge.submit(ECHO, "print(int(input()) + 1)").result(timeout=120).verdict != "passed"
    at_rest(judge)
    assert settles(lambda: len(below(os.getpid())) == processes), below(os.getpid())
    assert descriptors() <= opened


@pytest.mark.parametrize("kind", ["stdin", "functional", "again"])
def test_memory_holds_no_trace_of_an_earlier_program(judge, kind):
    """A program finds a word of its own input in its memory, and none of an earlier program's."""
    code_mark, input_mark, output_mark = MARKS
    if kind == "functional":
        first = function_problem("f", (f'"{input_mark}1"', f'"{output_mark}2"'))
        code = f"{code_mark}3 = '{output_mark[::-1]}'\ndef f(x): return {code_mark}3[::-1] + '2'"
    else:
        first = stdin_problem(*[(f"{input_mark}1", f"{output_mark}2")] * 3)
        code = f"{code_mark}3 = '{output_mark[::-1]}'\ninput()\nprint({code_mark}3[::-1] + '2')"
        code += "" if kind == "again" else "\nif 0: exec"
    outcome = judge.submit(first, code).result(timeout=60)
    assert outcome.passed, outcome.detail
    outcome = judge.submit(stdin_problem(("Dingo4", "Dingo4")), search_for("Dingo")).result()
    assert outcome.detail == r"test 1: printed '\n', expected 'Dingo4'"
    reads = "kept = input()\n" + search_for("Dingo")
    outcome = judge.submit(stdin_problem(("Dingo4", "Dingo4")), reads).result()
    assert outcome.passed, outcome.detail


def test_other_workers_are_out_of_sight():
    """Two programs at once, in two workers: neither sees, signals or hears the other."""
    execution = config.Execution(workers=2, time_limit_s=10.0, memory_mb=256)
    waiting = (
        "import os, socket, time\ntry:\n"
        "    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "    a.bind('\\0meeting')\n"
        "except OSError: pass\n"
        "open('left', 'w').close()\ntime.sleep(2)\nprint(input())"
    )
    looking = (
        "import os, socket, time\nseen = set()\nfor _ in range(100):\n    try:\n"
        "        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "        a.sendto(b'?', '\\0meeting'); seen.add('socket')\n    except OSError: pass\n"
        "    for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):\n"
        "        if pid not in (1, os.getpid(), os.getppid()):\n"
        "            try: os.kill(pid, 0); seen.add('process')\n            except OSError: pass\n"
        "    if os.path.exists('/tmp/left') or os.path.exists('left'): seen.add('file')\n"
        "    time.sleep(0.01)\nprint(*sorted(seen))"
    )
    with Judge(execution) as judge:
        first = judge.submit(ECHO, waiting)
        second = judge.submit(stdin_problem(("", "")), looking).result(timeout=60)
        assert first.result(timeout=60).passed
    assert second.passed, second.detail
