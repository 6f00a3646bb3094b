"""What the judge leaves behind, how it survives its own failures, and that it shares with JAX."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from judging import EXECUTION, function_problem, stdin_problem

from rlif_jax import config
from rlif_jax.execution import worker as worker_module
from rlif_jax.execution.pool import Judge, SandboxError
from rlif_jax.problem import Verdict

ECHO = stdin_problem(("7", "7"))
ECHO_CODE = "print(input())"


def judge_processes() -> set[int]:
    """Living zygotes of this process and their forks, which keep the zygote's command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if entry.name.isdigit():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[-2:-1] == [b"%d" % os.getpid()] and b"/zygote.py" in b" ".join(words):
                    found.add(int(entry.name))
    return found


def marked_processes(mark: str) -> list[int]:
    """Living processes with `mark` on their command line, this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def test_close_leaves_no_process_and_no_folder():
    before = judge_processes()
    with Judge(EXECUTION) as judge:
        scratch = judge._scratch
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        zygotes = [worker.zygote.pid for worker in judge._workers]
        assert len(zygotes) == 2
        assert judge_processes() == before | set(zygotes)
    assert judge_processes() == before
    assert not scratch.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in zygotes)
    judge.close()
    with pytest.raises(RuntimeError, match="closed"):
        judge.submit(ECHO, ECHO_CODE)


def test_close_gives_up_what_runs_and_what_waits():
    before = judge_processes()
    judge = Judge(config.Execution(workers=1, time_limit_s=60.0))
    running = judge.submit(ECHO, "import time\nopen('started', 'w')\ntime.sleep(250)")
    waiting = judge.submit(ECHO, ECHO_CODE)
    while not list(judge._scratch.glob("*/work/started")):
        time.sleep(0.01)
    assert len(judge_processes() - before) == 2
    judge.close()
    with pytest.raises(SandboxError, match="closed"):
        running.result(timeout=1)
    assert waiting.cancelled()
    assert judge_processes() == before


@pytest.mark.parametrize(
    "start",
    [
        "subprocess.Popen(command)",
        "subprocess.Popen(command, start_new_session=True, cwd='/', env={})",
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execv(command[0], command)\n    os._exit(0)\nos.wait()",
    ],
)
def test_daemons_are_killed_and_do_not_hold_the_judge_up(run, start):
    mark = f"rlif-mark-{os.getpid()}-{time.monotonic_ns()}"
    code = (
        "import os, subprocess, sys\n"
        f"command = [sys.executable, '-S', '-c', 'import time; time.sleep(99)', '{mark}']\n"
        f"{start}\nprint(input())"
    )
    begin = time.monotonic()
    outcome = run(ECHO, code)
    assert outcome.passed, outcome.detail
    assert marked_processes(mark) == []
    assert time.monotonic() - begin < 200


def test_a_bounded_fork_bomb_is_cleared():
    code = "import os, time\nfor _ in range(5): os.fork()\ntime.sleep(300)"  # 32 processes
    before = judge_processes()
    with Judge(config.Execution(workers=1, time_limit_s=0.4)) as judge:
        assert judge.submit(ECHO, code).result().verdict is Verdict.TIME_LIMIT
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        assert judge_processes() - before == {judge._workers[0].zygote.pid}


def test_too_many_processes_end_a_program():
    """At most 200 are tried; either the limit refuses them or the zygote notices them."""
    code = (
        "import os, time\n"
        "for _ in range(200):\n    if os.fork() == 0: time.sleep(300)\n"
        "time.sleep(0.5)\nprint(input())"
    )
    with Judge(config.Execution(workers=1, time_limit_s=3.0)) as judge:
        zygote = judge._workers[0].zygote
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        assert judge.submit(ECHO, code).result().verdict is Verdict.RUNTIME_ERROR
        assert judge._workers[0].zygote is zygote
        assert judge.submit(ECHO, ECHO_CODE).result().passed


def test_a_killed_zygote_is_replaced_and_the_test_repeated():
    before = judge_processes()
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        first = judge._workers[0].zygote.pid
        os.kill(first, signal.SIGKILL)
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        slow = judge.submit(ECHO, "import time\nopen('on', 'w')\ntime.sleep(1)\nprint(input())")
        while not list(judge._scratch.glob("*/work/on")):
            time.sleep(0.01)
        second = judge._workers[0].zygote.pid
        os.kill(second, signal.SIGKILL)
        assert slow.result().passed
        third = judge._workers[0].zygote.pid
        assert len({first, second, third}) == 3
        assert judge_processes() - before == {third}  # no orphan of the two


def test_broken_machinery_is_an_error_and_no_verdict(monkeypatch, tmp_path):
    """An interpreter that ends at once: tried twice, then raised; the judge recovers later."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no interpreter here >&2\nexit 3\n")
    broken.chmod(0o755)
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        judge._workers[0].zygote.hang_up()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(broken))
            with pytest.raises(SandboxError, match="stdin: the zygote ended: no interpreter here"):
                judge.submit(ECHO, ECHO_CODE).result()
        assert judge.submit(ECHO, ECHO_CODE).result().passed


def test_an_interpreter_that_is_missing_is_an_error_at_once(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SandboxError, match="cannot start /nowhere/python"):
        Judge(EXECUTION)


def test_a_full_or_vanished_disk_is_an_error_and_no_verdict():
    with Judge(config.Execution(workers=1)) as judge:
        assert judge.submit(ECHO, ECHO_CODE).result().passed
        shutil.rmtree(judge._scratch)
        with pytest.raises(SandboxError, match="No such file or directory"):
            judge.submit(ECHO, ECHO_CODE).result()
        judge._scratch.mkdir(0o711)
        assert judge.submit(ECHO, ECHO_CODE).result().passed


def test_the_judge_dies_with_its_process(tmp_path):
    """SIGKILL to the whole program: its zygotes and what they run notice and end."""
    mark = f"rlif-mark-{os.getpid()}-{time.monotonic_ns()}"
    script = (
        "import sys, time\nfrom rlif_jax import config\nfrom rlif_jax.execution.pool import Judge\n"
        "from rlif_jax.problem import Problem, Test\n"
        "judge = Judge(config.Execution(workers=1, time_limit_s=60.0))\n"
        "code = '''import subprocess, sys\\nsleep = 'import time; time.sleep(300)'\\n"
        f"subprocess.run([sys.executable, '-S', '-c', sleep, '{mark}'])'''\n"
        "judge.submit(Problem('p', '', (Test('', '', 'stdin'),)), code)\ntime.sleep(300)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    program = subprocess.Popen([sys.executable, "-c", script], env=environment)
    deadline = time.monotonic() + 120
    while len(marked_processes(mark)) < 2 and time.monotonic() < deadline:  # itself and the program
        time.sleep(0.02)
    program.kill()
    program.wait()
    while marked_processes(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marked_processes(mark) == []


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


def test_claims_are_read_line_by_line_with_the_nonce():
    parse = supervisor._parse_claims
    assert parse(b'n started ""\nn result [1]\n', "n") == (
        (("started", '""'), ("result", "[1]")),
        False,
    )
    assert parse(b'n started ""\nm result 1\n', "n") == ((("started", '""'),), True)
    assert parse(b'n started ""\nn result 1', "n") == ((("started", '""'),), True)
    assert parse(b"", "n") == ((), True)
