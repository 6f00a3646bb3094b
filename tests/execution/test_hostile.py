"""Programs that try to pass without the answer, or to do harm. All are bounded."""

import os
import time

import pytest
from support.execution.confinement import run_at
from support.execution.judging import EXECUTION, assert_problem, function_problem, stdin_problem
from test_isolation import row, workplace

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

# The answers cannot be derived from the inputs.
SECRET = stdin_problem(("1", "walnut-8213"), ("2", "60317 otter"))
SECRET_FUNCTION = function_problem("f", ("1", '"walnut-8213"'), ("2", '[60317, "otter"]'))

CHEATS = {
    "lying_eq": "class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()",
    "lying_element": "class Yes:\n    def __eq__(self, o): return True\ndef f(x): return [Yes()]",
    "lying_int": "class Yes(int):\n    def __eq__(self, o): return True\ndef f(x): return Yes(0)",
    "lying_str": "class Yes(str):\n    def __eq__(self, o): return True\ndef f(x): return Yes()",
    "lying_list": "class Yes(list):\n    def __eq__(self, o): return True\ndef f(x): return Yes()",
    "lying_fraction": "from fractions import Fraction\nclass Yes(Fraction):\n"
    "    def __eq__(self, o): return True\ndef f(x): return Yes(1, 3)",
    "mock_any": "from unittest.mock import ANY\ndef f(x): return ANY",
    "reduce": "class R:\n    def __reduce__(self): return (bool, (1,))\ndef f(x): return R()",
    "patched_json": "import json\njson.dumps = lambda *a, **k: 'true'\n"
    "json.encoder.JSONEncoder.encode = lambda *a: 'true'\ndef f(x): return 0",
    "patched_builtins": "import builtins\nbuiltins.isinstance = lambda *a: True\n"
    "builtins.type = str\nbuiltins.len = lambda x: 0\ndef f(x): return 0",
    "exit_0": "import os\nos._exit(0)",
    "sys_exit_0": "import sys\nsys.exit(0)",
    "answers_on_every_descriptor": "import os\nfor fd in range(3, 256):\n    try:\n"
    '        os.write(fd, b\'passed\\n{"verdict": "passed"}\\nresult true\\n\')\n'
    "    except OSError: pass\ndef f(x): return 0",
    "forged_claim": "import os, sys\nframe = sys._getframe()\nwhile frame:\n"
    "    for value in list(frame.f_locals.values()):\n"
    "        if isinstance(value, dict) and 'nonce' in value:\n"
    "            for verdict in ('passed', 'result true', 'result \"x\"'):\n"
    "                os.write(3, f\"{value['nonce']} {verdict}\\n\".encode())\n"
    "    frame = frame.f_back\nos._exit(0)",
    "closed_descriptors": "import os\nos.closerange(0, 256)\ndef f(x): return 0",
}


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
def test_no_cheat_passes(run, code):
    for problem in (SECRET, SECRET_FUNCTION):
        outcome = run(problem, code)
        assert outcome.verdict in (Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR), outcome
        assert len(outcome.results) == 1


def test_a_memorised_example_fails_the_next_test(run):
    outcome = run(SECRET, "print({'1': 'walnut-8213'}.get(input(), 0))")
    assert outcome.results == (Verdict.PASSED, Verdict.WRONG_ANSWER)
    function = "def f(x): return {1: 'walnut-8213'}.get(x, 0)"
    assert run(SECRET_FUNCTION, function).results == outcome.results


def test_a_claim_is_believed_only_as_a_returned_value(run):
    """Writing the right value oneself is no more than returning it, and only one value counts."""
    code = (
        "import os, sys\nnonce = sys._getframe(1).f_locals['nonce']\n"
        "for v in {}: os.write(3, f'{{nonce}} result {{v}}\\n'.encode())\n"
        "import time; time.sleep(0.3); os._exit(0)"
    )
    five = function_problem("f", ("1", "5"))
    assert run(five, code.format([5])).verdict is Verdict.PASSED
    assert run(five, code.format([4])).verdict is Verdict.WRONG_ANSWER
    assert run(five, "import os\nos.write(3, b'0 result 5\\n')\ndef f(x): return 5").verdict in (
        Verdict.RUNTIME_ERROR,
    )


def test_an_answer_ahead_of_time_is_no_answer(run):
    """The nonce of the second call is not known during the first, whatever is written then."""
    code = (
        "import os, sys, threading\n"
        "def f(x):\n    nonce = sys._getframe(1).f_locals['nonce']\n"
        "    os.write(3, f'{nonce} result 5\\n{nonce} result 5\\n'.encode())\n    return 5"
    )
    outcome = run(function_problem("f", ("1", "5"), ("2", "5")), code)
    assert outcome.verdict is Verdict.RUNTIME_ERROR
    assert outcome.detail.endswith("wrote to the judge's file descriptor")


def test_no_other_process_can_be_read(run):
    """Of all processes the program finds itself alone, and of the machine nothing else."""
    code = (
        "import os\n"
        f"for pid in ({os.getpid()}, 1, os.getppid()):\n"
        "    for name in ('stat', 'cmdline', 'mem', 'environ', 'maps', 'fd/0'):\n"
        "        try: print(pid, name, len(open(f'/proc/{pid}/{name}', 'rb').read(10)))\n"
        "        except OSError: pass\n"
        "print([n for n in os.listdir('/proc') if n not in ('self', 'thread-self')])\n"
        "print(os.getpid())"
    )
    outcome = run(stdin_problem(("", "['2']\n2")), code)
    assert outcome.passed, outcome.detail


def test_an_expected_output_is_nowhere_in_its_own_memory(run):
    """The program finds a word of its input there, and no word of the expected output."""
    code = (
        "import re\ntext = input()\nseen = set()\n"
        "with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:\n"
        "    for line in maps:\n"
        "        low, high = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "        if line.split()[1][:2] != 'rw' or high - low > 1 << 24: continue\n"
        "        memory.seek(low)\n"
        "        seen.update(re.findall(rb'zq[x]_[a-z]+', memory.read(high - low)))\n"
        "print(*sorted(w.decode() for w in seen))"
    )
    outcome = run(stdin_problem(("zqx_input", "zqx_output")), code)
    assert outcome.detail == r"test 1: printed 'zqx_input\n', expected 'zqx_output'"


def test_the_environment_is_empty_and_the_folder_its_own(run):
    code = "import os\nprint(dict(os.environ), os.listdir('.'), len(os.listdir('/proc/self/fd')))"
    expected = (
        "{'PYTHONHASHSEED': '0', 'OPENBLAS_NUM_THREADS': '1', 'OMP_NUM_THREADS': '1'} "
        "[] 4"  # 0, 1, 2 and the listing's own
    )
    outcome = run(stdin_problem(("", expected)), code)
    assert outcome.passed, outcome.detail


def test_limits_cannot_be_raised(run):
    code = (
        "import resource as r\n"
        "for name in ('AS', 'CPU', 'FSIZE', 'NOFILE', 'CORE'):\n"
        "    kind = getattr(r, 'RLIMIT_' + name)\n"
        "    soft, hard = r.getrlimit(kind)\n"
        "    assert soft == hard != r.RLIM_INFINITY\n"
        "    try: r.setrlimit(kind, (hard + 1, hard + 1)); print(name)\n"
        "    except (ValueError, OSError): pass\n"
        "try: open('big', 'wb').truncate(1 << 40); print('big')\n"
        "except OSError: print('limited')"
    )
    outcome = run(stdin_problem(("", "limited")), code)
    assert outcome.passed, outcome.detail


@pytest.mark.parametrize(
    "code",
    [
        "import signal\nfor s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass\nwhile True: pass",
        "import signal\nsignal.alarm(0)\nwhile True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass",
        "sum(range(10**12))",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import sys, time\nsys.stdout.close()\ntime.sleep(60)",
        "import os, time\nos.closerange(0, 256)\ntime.sleep(60)",
        "import threading\nthreading.Thread(target=threading.Event().wait).start()",
        "import sys\nwhile True:\n    try: sys.stderr.write('x' * 65536)\n    except OSError: pass",
    ],
)
def test_what_will_not_end_is_ended(code):
    start = time.monotonic()
    with Judge(config.Execution(workers=1, time_limit_s=0.3)) as judge:
        outcome = judge.submit(stdin_problem(("", "x")), code).result(timeout=60)
    assert outcome.verdict is Verdict.TIME_LIMIT, outcome
    assert time.monotonic() - start < 60


def test_a_flood_of_standard_error_is_harmless(run):
    code = "import os\nfor _ in range(16): os.write(2, b'y' * 65536)\nprint('ok')"
    assert run(stdin_problem(("", "ok")), code).passed
    code += "\nraise ValueError('the end is kept')"
    assert run(stdin_problem(("", "ok")), code).detail.endswith("ValueError: the end is kept")


def test_a_program_that_does_not_compile_is_told_apart_every_time(judge):
    """Nothing that was ordered before it is known to be none may take its place."""
    problem = stdin_problem(("", ""), ("", ""))
    futures = [judge.submit(problem, f"x = {n}\n  y = 1") for n in range(200)]
    verdicts = {future.result(timeout=120).verdict for future in futures}
    assert verdicts == {Verdict.COMPILE_ERROR}


def test_the_end_of_a_function_that_may_fork_is_heard_before_another_runs_out_of_time():
    """What it and those below it have used is counted, but nobody waits for a count that ended."""
    codes = ("os.fork\n    1 / 0", "os.fork()\n    os._exit(3)", "os.fork()\n    os.abort()")
    problems = (function_problem("f", ("1", "1")), assert_problem("f", "assert f(1) == 1"))
    with Judge(config.Execution(workers=2, time_limit_s=1.0, memory_mb=256)) as judge:
        sleeper = judge.submit(stdin_problem(("", "")), "import time\ntime.sleep(60)")
        ending = [
            judge.submit(problem, f"import os\ndef f(x):\n    {code}")
            for problem in problems
            for code in codes
        ]
        assert sleeper.result(timeout=120).verdict is Verdict.TIME_LIMIT
        late = [future.done() for future in ending].count(False)
        assert late <= 1, f"{late} of {len(ending)} had not ended"  # the last may be about to
        assert not any(future.result(timeout=120).passed for future in ending)


@pytest.mark.parametrize("level", ["as it is", "no namespaces"])
def test_processes_that_are_made_at_the_last_moment_are_ended(level):
    """They are forked while what has ended is being cleared away, and would sleep on."""
    code = (
        "import os, time\nprint(input(), flush=True)\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0: time.sleep(1000)\n    os._exit(0)"
    )
    texts = [str(n) for n in range(30)]
    programs = [["late", row("late", texts, texts), code, False]]
    with workplace(0o755) as folder:
        seen = run_at(level, folder, {"allow": True, "programs": programs})
    assert "error" not in seen, seen["error"]
    late = seen["programs"]["late"]
    assert late["verdict"] == "passed", late["detail"]
    assert late["after"] == [True, False] * 2
    assert not late["changed"] and not seen["left"]["processes"]


def test_deep_recursion_and_crashes_are_runtime_errors(run):
    crash = "import ctypes\nctypes.string_at(0)"
    outcome = run(SECRET, crash)
    assert (outcome.verdict, outcome.detail) == (Verdict.RUNTIME_ERROR, "test 1: killed by SIGSEGV")
    deep = (
        "import sys\nsys.setrecursionlimit(10**8)\nclass A:\n    def __repr__(s): return repr(s)\n"
    )
    assert run(SECRET, deep + "print(A())").verdict in (Verdict.RUNTIME_ERROR, Verdict.MEMORY_LIMIT)


def test_a_program_cannot_end_the_judge(run):
    """Its supervisor may be within reach (same user), the judge's later programs are not."""
    code = (
        "import os, signal\n"
        "for _ in range(3):\n"
        "    try: os.kill(os.getppid(), signal.SIGKILL)\n"
        "    except OSError: pass\n"
        "raise KeyboardInterrupt"
    )
    assert run(SECRET, code).verdict is Verdict.RUNTIME_ERROR
    for _ in range(4):
        assert run(stdin_problem(("7", "7")), "print(input())").passed


def test_folders_that_resist_removal_are_removed():
    code = (
        "import os\nopen('f', 'w').close()\nos.mkdir('d')\nopen('d/f', 'w').close()\n"
        "os.symlink('/etc', 'd/etc')\nos.chmod('d', 0)\n"
        "for _ in range(1500):\n    os.mkdir('n'); os.chdir('n')\n"
        "print(1)"
    )
    with Judge(EXECUTION) as judge:
        scratch = judge._scratch
        problem = stdin_problem(("", "1"), ("", "1"))
        assert judge.submit(problem, code).result().passed
        assert scratch.exists()
    assert not scratch.exists()
    assert os.path.isfile("/etc/passwd")
