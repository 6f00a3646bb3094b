"""What the judge leaves behind, and that it shares with threads and with JAX."""

import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support.execution.host import at_rest, descriptors
from support.execution.judge_processes import (
    ECHO,
    ECHO_CODE,
    await_program,
    ends,
    first_process,
    judge_processes,
    loader,
)
from support.execution.judging import EXECUTION, assert_problem, function_problem, stdin_problem

from rlif_jax import config
from rlif_jax.execution.pool import Judge, SandboxError
from rlif_jax.problem import Verdict


def test_close_leaves_no_process_and_no_folder():
    before = judge_processes()
    with Judge(EXECUTION) as judge:
        scratch = judge._scratch
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        assert all(slot.isolation() == judge.isolation for slot in judge._slots)  # all are up
        outer = {slot.worker.pid for slot in judge._slots}
        workers = outer | {first_process(judge, n) for n in range(2)}
        assert len(outer) == 2
        at_rest(judge)
        assert judge_processes() - before == workers
    assert judge_processes() == before
    assert not scratch.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    judge.close()
    with pytest.raises(RuntimeError, match="closed"):
        judge.submit(ECHO, ECHO_CODE)


def test_close_gives_up_what_runs_and_what_waits():
    before = judge_processes()
    judge = Judge(config.Execution(workers=1, time_limit_s=60.0))
    code = "import os, time\nfor _ in range(3): os.fork()\ntime.sleep(250)"  # 8 processes
    running = judge.submit(ECHO, code)
    waiting = judge.submit(ECHO, ECHO_CODE)
    await_program(judge, 8)
    processes = judge_processes() - before
    workers = {judge._slots[0].worker.pid, first_process(judge)}
    assert len(processes) == 8 + len(workers | {loader(judge)})
    judge.close()
    with pytest.raises(SandboxError, match="closed"):
        running.result(timeout=1)
    assert waiting.cancelled()
    assert judge_processes() <= before
    assert ends(processes)


DAEMONS = {
    "child": "if os.fork() == 0: time.sleep(99)",
    "session": "if os.fork() == 0:\n    os.setsid()\n    time.sleep(99)",
    "twice": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(99)\n"
    "    os._exit(0)\nos.wait()",
    "deaf": "import signal\nif os.fork() == 0:\n    os.setsid(); os.closerange(0, 64)\n"
    "    for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
    "        try: signal.signal(s, signal.SIG_IGN)\n        except OSError: pass\n"
    "    time.sleep(99)",
}


@pytest.mark.parametrize("start", DAEMONS.values(), ids=DAEMONS)
def test_daemons_are_killed_and_do_not_hold_the_judge_up(start):
    code = f"import os, time\n{start}\nprint(input())"
    with Judge(config.Execution(workers=1)) as judge:
        workers = judge_processes()
        outcome = judge.submit(ECHO, code).result(timeout=60)
        assert outcome.passed, outcome.detail
        at_rest(judge)
        assert judge_processes() == workers


def test_a_bounded_fork_bomb_is_cleared():
    code = "import os, time\nfor _ in range(5): os.fork()\ntime.sleep(300)"  # 32 processes
    before = judge_processes()
    with Judge(config.Execution(workers=1, time_limit_s=0.4)) as judge:
        assert judge.submit(ECHO, code).result().verdict is Verdict.TIME_LIMIT
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        at_rest(judge)
        workers = {judge._slots[0].worker.pid, first_process(judge)}
        assert judge_processes() - before == workers


def test_too_many_processes_end_a_program():
    """At most 200 are tried; either the limit refuses them or the zygote notices them.

    The memory is more than 64 processes could hold in sockets, which the zygote counts as well.
    """
    code = (
        "import os, time\n"
        "for _ in range(200):\n    if os.fork() == 0: time.sleep(300)\n"
        "time.sleep(10)\nprint(input())"
    )
    with Judge(config.Execution(workers=1, time_limit_s=3.0, memory_mb=1024)) as judge:
        worker = judge._slots[0].worker
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        assert judge.submit(ECHO, code).result().verdict is Verdict.RUNTIME_ERROR
        assert judge._slots[0].worker is worker
        assert judge.submit(ECHO, ECHO_CODE).result().passed


def test_answers_of_a_zygote_do_not_pile_up():
    """It says of each loader how it ended, and does not wait until that is heard."""
    problem = assert_problem("f", "assert f(7) == 7", "assert f(8) == 8")
    with Judge(config.Execution(workers=1, time_limit_s=2.0)) as judge:
        slot = judge._slots[0]
        for _ in range(150):
            outcome = judge.submit(problem, "def f(x): return x").result(timeout=60)
            assert outcome.passed, outcome
            assert max(worker.pending_ends for worker in slot._workers()) <= 2
        workers = slot._workers()
        futures = [judge.submit(ECHO, ECHO_CODE if n % 2 else "print(8)") for n in range(600)]
        assert [future.result(timeout=60).passed for future in futures] == [False, True] * 300
        assert slot._workers() == workers  # none was replaced


def test_the_judge_dies_with_its_process(judge, tmp_path):
    """SIGKILL to the whole program: its zygotes and what they run notice and end."""
    script = (
        "import time\nfrom rlif_jax import config\nfrom rlif_jax.execution.pool import Judge\n"
        "from rlif_jax.problem import Problem, Test\n"
        "judge = Judge(config.Execution(workers=2, time_limit_s=60.0))\n"
        "code = 'import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(280)'\n"
        "for _ in range(2): judge.submit(Problem('p', '', (Test('', '', 'stdin'),)), code)\n"
        "time.sleep(280)\n"
    )
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    program = subprocess.Popen([sys.executable, "-c", script], env=environment)
    per_worker = 1 if judge.isolation["namespaces"].startswith("none") else 2
    expected = 2 * (per_worker + 3)  # a loader and two processes of each worker's program
    deadline = time.monotonic() + 60
    while len(judge_processes(program.pid)) < expected and time.monotonic() < deadline:
        time.sleep(0.02)
    processes = judge_processes(program.pid)
    program.kill()
    program.wait()
    assert len(processes) == expected
    assert ends(processes)
    assert judge_processes(program.pid) == set()


def test_no_descriptor_is_left_by_200_programs():
    codes = [ECHO_CODE, "print(8)", "1 / 0", "(", "import os\nos.dup(1)\nos.fork()", "exit()"]
    adds = function_problem("f", ("1", "2"), ("2", "3"))
    more = ["def f(x): return x + 1", "def f(x): return x", "import os\ndef f(x): os._exit(0)"]
    with Judge(EXECUTION) as judge:
        programs = [*((ECHO, code) for code in codes), *((adds, code) for code in more)]
        passed = [judge.submit(*program).result().passed for program in programs]
        assert passed == [True, *[False] * 5, True, False, False]
        at_rest(judge)
        gc.collect()  # what earlier tests left to it
        before = descriptors()
        futures = [judge.submit(*programs[n % len(programs)]) for n in range(200)]
        assert sum(future.result().passed for future in futures) == 45
        at_rest(judge)
        gc.collect()
        assert descriptors() <= before
        zygotes = [first_process(judge, n) for n in range(2)]
        assert all(len(os.listdir(f"/proc/{pid}/fd")) < 8 for pid in zygotes)


def test_many_programs_at_once_while_jax_computes():
    """Nothing forks this process (JAX would warn), and order and verdicts hold under load."""
    adds = function_problem("f", *((f"{i}\n{i}", str(2 * i)) for i in range(3)))
    codes = ["def f(a, b): return a + b", "def f(a, b): return a - b", "def f(a, b): return a / 0"]
    verdicts = [Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR]
    step = jax.jit(lambda x_DD: jnp.tanh(x_DD @ x_DD))
    with warnings.catch_warnings(), Judge(EXECUTION) as judge:
        warnings.simplefilter("error", RuntimeWarning)
        futures = [judge.submit(adds, codes[i % 3]) for i in range(30)]
        x_DD = jnp.full((128, 128), 0.01)
        while not all(future.done() for future in futures):
            x_DD = step(x_DD).block_until_ready()
        outcomes = [future.result() for future in futures]
    assert [outcome.verdict for outcome in outcomes] == verdicts * 10
    assert all(outcome.seconds > 0 for outcome in outcomes)
    assert float(jnp.abs(x_DD).max()) <= 1.0


def test_submitting_from_many_threads():
    with Judge(EXECUTION) as judge:
        results = []

        def work(number: int) -> None:
            problem = stdin_problem((str(number), str(number)))
            results.append((number, judge.submit(problem, ECHO_CODE).result().passed))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [(n, True) for n in range(12)]
