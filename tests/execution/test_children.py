"""Processes that a program starts: what they use counts, and which programs may start some."""

import pytest
from support.execution.judging import assert_problem, function_problem, stdin_problem

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Problem, Verdict

LIMIT_S = 0.5
BURN = "import os, time\ndef burn():\n    while time.process_time() < 2: pass\n    os._exit(0)\n"
# Each has a process beside the program use more than the limit, and the program next to nothing.
BURNING = {
    "nobody waits": "if os.fork() == 0: burn()\ntime.sleep(60)\n",
    "waited for": "if os.fork() == 0: burn()\nos.wait()\n",
    "two together": "for _ in range(2):\n    if os.fork() == 0: burn()\ntime.sleep(60)\n",
    "orphan": "if os.fork() == 0:\n    if os.fork() == 0: burn()\n    os._exit(0)\n"
    "os.wait()\ntime.sleep(60)\n",
    "session": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: burn()\n"
    "    os._exit(0)\ntime.sleep(60)\n",
    "deaf to its child": "import signal\n"
    "try: signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nexcept OSError: pass\n"
    "if os.fork() == 0: burn()\ntry: os.wait()\nexcept OSError: pass\n",
    "multiprocessing": "import multiprocessing\n"
    "multiprocessing.get_context('fork').Process(target=burn, daemon=True).start()\n"
    "time.sleep(60)\n",
    # It is gone before anybody looks, and nobody collects it: the kernel has the figure.
    "short": "for _ in range(20):\n    child = os.fork()\n    if child == 0:\n"
    "        while time.process_time() < 0.05: pass\n        os._exit(0)\n"
    "    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)\n",
}


@pytest.fixture(scope="module")
def judge():
    with Judge(config.Execution(workers=2, time_limit_s=LIMIT_S, memory_mb=512)) as judge:
        yield judge


def asked(kind: str, work: str) -> tuple[Problem, str]:
    """A problem and a program that does this work before it gives the right answer."""
    if kind == "stdin":
        return stdin_problem(("7", "7")), f"{BURN}{work}print(input())"
    body = "".join(f"    {line}\n" for line in work.splitlines())
    code = f"{BURN}def f(x):\n{body}    return x"
    problem = assert_problem("f", "assert f(7) == 7") if kind == "assert" else None
    return problem or function_problem("f", ("7", "7")), code


@pytest.mark.parametrize("kind", ["stdin", "functional", "assert"])
@pytest.mark.parametrize("name", BURNING)
def test_cpu_time_of_other_processes_counts(judge, kind, name):
    problem, code = asked(kind, BURNING[name])
    outcome = judge.submit(problem, code).result(timeout=120)
    assert outcome.verdict is Verdict.TIME_LIMIT, outcome
    assert outcome.detail == f"test 1: used more than {LIMIT_S} s of CPU time"


@pytest.mark.parametrize("kind", ["functional", "assert"])
def test_each_call_is_held_to_what_it_has_used_itself(judge, kind):
    """A child of each of three calls uses two fifths of the limit: together it is too much."""
    busy = "    while time.process_time() < 0.2: pass\n"
    work = f"if os.fork() == 0:\n{busy}    os._exit(0)\nos.wait()\n"
    problem, code = asked(kind, work)
    tests = problem.tests * 3
    problem = Problem("three", "", tests, entry_point="f")
    outcome = judge.submit(problem, code).result(timeout=120)
    assert outcome.results == (Verdict.PASSED,) * 3, outcome


@pytest.mark.parametrize("kind", ["functional", "assert"])
def test_a_call_may_not_use_the_time_of_those_to_come(judge, kind):
    """All three together may use as much as the child of the first one does."""
    busy = f"    while time.process_time() < {2.4 * LIMIT_S}: pass\n"
    problem, code = asked(kind, f"if os.fork() == 0:\n{busy}    os._exit(0)\nos.wait()\n")
    problem = Problem("three", "", problem.tests * 3, entry_point="f")
    outcome = judge.submit(problem, code).result(timeout=120)
    assert outcome.results == (Verdict.TIME_LIMIT,), outcome


POOL = (
    "import multiprocessing\ndef square(x): return x * x\n"
    "def f(n):\n    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
    "        return sum(pool.map(square, range(n)))"
)


@pytest.mark.parametrize(
    "problem, code",
    [
        (function_problem("f", ("10", "285"), ("3", "5")), POOL),
        (assert_problem("f", "assert f(10) == 285", "assert f(3) == 5"), POOL),
        (stdin_problem(("10", "285"), ("3", "5")), f"{POOL}\nprint(f(int(input())))"),
    ],
    ids=["functional", "assert", "stdin"],
)
def test_an_honest_pool_passes(problem, code):
    with Judge(config.Execution(workers=1, time_limit_s=5.0, memory_mb=1024)) as judge:
        outcome = judge.submit(problem, code).result(timeout=120)
        assert outcome.results == (Verdict.PASSED,) * 2, outcome
        wrong = code.replace("x * x", "x + x")
        assert judge.submit(problem, wrong).result(timeout=120).verdict is Verdict.WRONG_ANSWER


TRIES = {
    "by another name": "name = 'fo' + 'rk'\nwork = lambda: getattr(os, name)()",
    "by its number": "call = ctypes.CDLL(None, use_errno=True).syscall\ndef work():\n"
    "    pid = call({'x86_64': 56, 'aarch64': 220}[platform.machine()], 17, 0, 0, 0, 0)\n"
    "    if pid < 0: raise OSError(ctypes.get_errno(), '')\n    return pid",
    "subprocess": "work = lambda: subprocess.Popen(['/bin/true']).pid",
}


@pytest.mark.parametrize("name", TRIES)
def test_of_functions_only_those_that_speak_of_it_may_fork(judge, name):
    """EPERM to the others; all have threads."""
    code = (
        "import ctypes, errno, os, platform, subprocess, threading\n"
        f"{TRIES[name]}\n"
        "def f(x):\n"
        "    thread = threading.Thread(target=seen.append, args=(x,))\n"
        "    thread.start(); thread.join()\n"
        "    try: pid = work()\n"
        "    except OSError as error: return [seen, errno.errorcode[error.errno]]\n"
        "    if pid == 0: os._exit(0)\n"
        "    return [seen, 'it could']\nseen = []\n"
    )
    for ending, answer in (("", "EPERM"), ("# fork", "it could")):
        if name == "subprocess" and ending:
            answer = "EPERM"  # of exec
        expected = f'[[1], "{answer}"]'
        outcome = judge.submit(function_problem("f", ("1", expected)), code + ending).result()
        assert outcome.passed, outcome
        asserted = assert_problem("f", f"assert f(1) == {expected}")
        assert judge.submit(asserted, code + ending).result().passed
