"""Every test of a whole program finds what the first one finds, and is judged by how it ends."""

import pytest
from support.execution.judging import function_problem, stdin_problem

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Outcome, Verdict

# What a test finds, and what it does so that a later one could find it.
FINDS = {
    "process id": "found = os.getpid(), os.getppid(), os.getpgid(0), os.getsid(0)",
    "ids of its children": (
        "found = []\nfor _ in range(3):\n    pid = os.fork()\n    if pid == 0: os._exit(0)\n"
        "    found.append(pid); os.wait()"
    ),
    "thread id": "import threading\nfound = threading.get_native_id()",
    "folder": "found = os.getcwd(), os.listdir('.'), os.stat('.').st_ino, os.stat('.').st_mode",
    "inode numbers": (
        "found = []\nfor n in range(3):\n    with open(f'new{n}', 'w') as new:\n"
        "        new.write('x' * 9999)\n        found.append(os.fstat(new.fileno()).st_ino)"
    ),
    "room": (
        "room = os.statvfs('.')\nfound = room.f_bfree, room.f_ffree\n"
        "open('big', 'wb').write(bytes(1 << 20))"
    ),
    "modules": "found = sorted(sys.modules)\nimport wave, colorsys, numpy",
    "modules' state": (
        "found = getattr(json, 'left', 0), getattr(sys, 'left', 0)\njson.left = sys.left = 1"
    ),
    "environment": "found = dict(os.environ)\nos.environ['LEFT'] = '1'\nos.putenv('LEFT_TOO', '1')",
    "descriptors": (
        "found = []\nfor fd in range(3, 300):\n    try: found.append(os.fstat(fd))\n"
        "    except OSError: pass\n"
        "import socket\nkept = [os.dup(1), *socket.socketpair(), os.eventfd(0), *os.pipe()]"
    ),
    "streams": (
        "found = [os.lseek(fd, 0, 1) for fd in range(3)], [os.fstat(fd).st_size for fd in (1, 2)]"
    ),
    "limits": (
        "import resource as r\nkinds = [n for n in dir(r) if n.startswith('RLIMIT_')]\n"
        "found = [r.getrlimit(getattr(r, n)) for n in kinds]\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (40, 40)); r.setrlimit(r.RLIMIT_NPROC, (30, 30))"
    ),
    "scheduling": (
        "found = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)\n"
        "os.nice(5); os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    ),
    "signals": (
        "import signal\nfound = [str(signal.getsignal(n)) for n in range(1, 64)]\n"
        "found += [str(signal.pthread_sigmask(0, [])), os.umask(0o077)]\n"
        "signal.signal(10, signal.SIG_IGN); signal.pthread_sigmask(0, [12])"
    ),
    "processes": (
        "import time\nfound = os.listdir('/proc'), os.listdir('/outer')\n"
        "if os.fork() == 0:\n    os.setsid(); time.sleep(9)"
    ),
    "usage of children": (
        "import resource\nfound = list(resource.getrusage(resource.RUSAGE_CHILDREN))\n"
        "if os.fork() == 0:\n    sum(range(10**6)); os._exit(0)\nos.wait()"
    ),
    "addresses": (
        "found = id(object()), id([]), hash('x'), hash(object())\nkept = [[] for _ in range(9999)]"
    ),
    "random numbers": "found = random.random(), random.getstate()[1][:3]",
    "recursion": (
        "found = sys.getrecursionlimit(), sys.getswitchinterval()\n"
        "sys.setrecursionlimit(99); sys.setswitchinterval(1)"
    ),
    "collector": (
        "import gc\nfound = gc.get_threshold(), gc.isenabled(), len(gc.callbacks)\n"
        "gc.disable(); gc.set_threshold(7); gc.callbacks.append(print)"
    ),
    "exit functions": "import atexit\nfound = atexit._ncallbacks()\natexit.register(print)",
    "types": "found = len(object.__subclasses__()), len(int.__subclasses__())\nclass A(int): pass",
}
TELL = "\nprint(hashlib.md5(repr(found).encode()).hexdigest())\nsys.stdout.flush()\nos._exit(0)"


@pytest.fixture(scope="module")
def thorough():
    """A judge of one worker: another has its memory at other addresses."""
    with Judge(config.Execution(workers=1, time_limit_s=0.5), run_all_tests=True) as judge:
        yield judge


def answers(judge: Judge, code: str, count: int = 4) -> Outcome:
    return judge.submit(stdin_problem(*[("", "?")] * count), code).result(timeout=60)


@pytest.mark.parametrize("name", FINDS)
def test_a_test_finds_nothing_of_those_before_it(thorough, name):
    """Four tests print the same; the key of an answer stands for all of it."""
    code = f"import hashlib, os, sys\n{FINDS[name]}{TELL}"
    outcome = answers(thorough, code)
    assert outcome.results == (Verdict.WRONG_ANSWER,) * 4, outcome
    assert len(set(outcome.answers)) == 1, outcome
    if name != "addresses":  # a loader's depend on how long its zygote has been at work
        assert answers(thorough, code).answers == outcome.answers


def test_what_it_finds(run):
    """The second process, of a loader that it cannot see; its own folder; three descriptors."""
    code = (
        "import os, sys\n"
        "print(os.getpid(), os.getppid(), os.getcwd(), os.listdir('.'), sys.argv)\n"
        "fds = []\nfor fd in range(999):\n    try: fds.append(os.fstat(fd) and fd)\n"
        "    except OSError: pass\n"
        "print(fds, input())\n"
        "print(os.stat(open('a', 'w').name).st_ino, os.stat(open('b', 'w').name).st_ino)"
    )
    shown = "2 1 /box [] ['solution.py']\n[0, 1, 2] {}\n2 3"
    tests = [(word, shown.format(word)) for word in ("one", "two", "three")]
    outcome = run(stdin_problem(*tests), code)
    assert outcome.results == (Verdict.PASSED,) * 3, outcome


@pytest.mark.parametrize(
    ("ending", "verdict", "why"),
    [
        ("os._exit(0)", Verdict.PASSED, ""),
        ("os._exit(3)", Verdict.RUNTIME_ERROR, "exit status 3"),
        ("os._exit(256 + 7)", Verdict.RUNTIME_ERROR, "exit status 7"),
        ("os.kill(os.getpid(), 11)", Verdict.RUNTIME_ERROR, "killed by SIGSEGV"),
        ("os.kill(os.getpid(), 9)", Verdict.RUNTIME_ERROR, "killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", Verdict.RUNTIME_ERROR, "killed by SIGSEGV"),
        ("1 / 0", Verdict.RUNTIME_ERROR, "ZeroDivisionError: division by zero"),
        ("import time; time.sleep(99)", Verdict.TIME_LIMIT, "of wall-clock time"),
        ("import signal; signal.pause()", Verdict.TIME_LIMIT, "of wall-clock time"),
        ("while True: pass", Verdict.TIME_LIMIT, "of CPU time"),
        ("if os.fork(): os._exit(0)\nos._exit(5)", Verdict.PASSED, ""),
        ("if os.fork() == 0: os._exit(0)\nos._exit(5)", Verdict.RUNTIME_ERROR, "exit status 5"),
    ],
)
def test_an_answer_does_not_hide_the_end(thorough, ending, verdict, why):
    """Of the second of three tests: the first and the third end well and pass."""
    ending = ending.replace("\n", "\n    ")
    code = f"import os, sys\nn = input()\nprint(n)\nsys.stdout.flush()\nif n == '2':\n    {ending}"
    problem = stdin_problem(("1", "1"), ("2", "2"), ("3", "3"))
    outcome = thorough.submit(problem, code).result(timeout=60)
    assert outcome.results == (Verdict.PASSED, verdict, Verdict.PASSED), outcome
    assert outcome.detail.startswith("test 2: " if why else "") and outcome.detail.endswith(why)


FLOODS = {
    "print": "print('x' * 999)",
    "write": "os.write(1, b'x' * 65536)",
    "sparse": "os.lseek(1, 1 << 20, 1); os.write(1, b'x')",
    "longer": "os.ftruncate(1, 63 << 20); time.sleep(0.01)",
    "child": "os.fork() or os.write(1, b'x' * 65536); time.sleep(0.1)",
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_output_ends_with_its_limit(run, name):
    """Whatever the program makes of the errors that the end of the room for it means."""
    code = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"while True:\n    try:\n        while True: {FLOODS[name]}\n    except BaseException: pass"
    )
    outcome = run(stdin_problem(("", "x")), code)
    assert outcome.verdict is Verdict.OUTPUT_LIMIT, outcome


def test_a_flood_on_the_channel_of_a_function_ends_with_the_limit(run):
    code = (
        "import os\ndef f(x):\n    while True:\n        try: os.write(3, b'x' * 65536)\n"
        "        except BaseException: pass"
    )
    outcome = run(function_problem("f", ("1", "1")), code)
    assert outcome.verdict is Verdict.OUTPUT_LIMIT, outcome
