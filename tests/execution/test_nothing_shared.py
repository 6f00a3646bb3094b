"""Every test of a whole program is a process that finds what the first one found, and no more.

Each program here prints something that could last, and then changes it.
"""

import ast

import pytest
from support.execution.judging import EXECUTION, assert_problem, function_problem, stdin_problem

from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

_COUNT = "try: n = {0}.k\nexcept AttributeError: n = 0\n{0}.k = n + 1\nprint(n)"
_TRY = "try: {}\nexcept (OSError, ValueError): pass"
# In Python: the same module, class or table of the library in the process that forks.
PYTHON = {
    "a module": "import math\n" + _COUNT.format("math"),
    "a module of the prelude": _COUNT.format("math"),
    "a module inside a module": _COUNT.format("collections._sys"),
    "a class of the library": "from collections import Counter\n" + _COUNT.format("Counter"),
    "a class of the prelude": _COUNT.format("Random"),
    "a function of the library": _COUNT.format("namedtuple"),
    "a base class": "import fractions\nclass A(fractions.Fraction): pass\nT = A.mro()[1]\n"
    + _COUNT.format("T"),
    "the builtins": "import builtins\n" + _COUNT.format("builtins"),
    "the program's module": "import sys\nm = sys.modules['__main__']\n" + _COUNT.format("m"),
    "the table of modules": "import sys\nprint('colorsys' in sys.modules)\nimport colorsys",
    "the arguments": "import sys\nprint(sys.argv, sys.path)\nsys.argv.append(1)\nsys.path.pop()",
    "the recursion limit": "import sys\nprint(sys.getrecursionlimit())\nsys.setrecursionlimit(999)",
    "digits of an int": "import sys\nprint(sys.get_int_max_str_digits())\n"
    "sys.set_int_max_str_digits(0)",
    "the random state": "import random\nprint(random.random())\nrandom.seed(7)",
    "the decimal context": "import decimal\nprint(decimal.getcontext().prec)\n"
    "decimal.getcontext().prec = 5",
    "the locale": "import locale\nprint(locale.setlocale(locale.LC_ALL))\n"
    "locale.setlocale(locale.LC_ALL, 'C.UTF-8' if locale.setlocale(locale.LC_ALL) == 'C' else 'C')",
    "the garbage collector": "import gc\nprint(gc.isenabled(), gc.get_threshold(), "
    "gc.get_freeze_count() > 0)\ngc.disable()\ngc.set_threshold(7)\ngc.unfreeze()",
    "uncollected garbage": "import gc\nclass A:\n    def __del__(self): print('late')\n"
    "gc.disable()\na = A()\na.me = a\ndel a\nprint('now')",
    "the cache of patterns": "import re\nn = len(re._cache)\nre.compile('a' * (n + 1))\nprint(n)",
    "an abstract class": "import numbers\nprint(isinstance('', numbers.Number))\n"
    "numbers.Number.register(str)",
    "the table of overloads": "def f(): pass\nprint(len(get_overloads(f)))\n"
    "@overload\ndef f(): pass",
    "the table of copies": "n = len(copy.dispatch_table)\ncopy.dispatch_table[n] = 1\nprint(n)",
    "filters of warnings": "import warnings\nprint(len(warnings.filters))\n"
    "warnings.simplefilter('error')",
    "functions for the end": "import atexit\nprint(atexit._ncallbacks())\natexit.register(int)",
    "hooks": "import sys\nprint(sys.excepthook is sys.__excepthook__, sys.gettrace())\n"
    "sys.excepthook = sys.settrace(lambda *a: None)",
    "threads": "import threading, time\nprint(threading.active_count())\n"
    "threading.Thread(target=time.sleep, args=(0.01,), daemon=True).start()",
    "standard output": "import sys\nprint(sys.stdout is sys.__stdout__)\nsys.stdout = sys.stderr",
    "references": "print(getrefcount('abcdefgh'))\nkeep = ['abcdefgh'] * 5\n"
    "import ctypes\nctypes.pythonapi.Py_IncRef(ctypes.py_object('abcdefgh'))",
}
# Of the kernel: what belongs to a process, a session, a namespace, a folder or an open file.
SYSTEM = {
    "the environment": "import os\nprint(sorted(os.environ))\nos.environ['K'] = 'x'",
    "files": "import os\nprint(os.listdir('.'))\nopen('left', 'w').close()\nos.mkdir('folder')\n"
    "os.symlink('left', 'link')",
    "the folder's mode": "import os\nprint(oct(os.stat('.').st_mode))\nos.chmod('.', 0o701)",
    "the folder's own number": "import os\nprint(os.stat('.').st_ino, os.stat('.').st_nlink)\n"
    "for n in range(9): os.mkdir(str(n))",
    "numbers of files": "import os\nopen('a', 'w').close()\nprint(os.stat('a').st_ino)\n"
    "for n in range(9): open(str(n), 'w').close()",
    "attributes of the folder": "import os\n"
    + _TRY.format("print(os.listxattr('.'))")
    + "\n"
    + _TRY.format("os.setxattr('.', 'user.k', b'1')"),
    "files elsewhere": "import os\nfor p in ('/tmp', '/var/tmp', '/dev/shm', '/run', '/'):\n"
    "    try: print('rlif-left' in os.listdir(p))\n    except OSError as e: print(e.errno)\n"
    "    try: open(p + '/rlif-left', 'w').close()\n    except OSError: pass",
    "the current folder": "import os\nprint(os.getcwd())\nos.mkdir('d')\nos.chdir('d')",
    "the umask": "import os\nprint(os.umask(0o777))",
    "limits": "import resource as r\nprint(hash(tuple(r.getrlimit(n) for n in range(16))))\n"
    "r.setrlimit(r.RLIMIT_NOFILE, (20, 20))\nr.setrlimit(r.RLIMIT_CORE, (0, 0))",
    "niceness": "import os\nprint(os.getpriority(os.PRIO_PROCESS, 0))\nos.nice(3)",
    "what its parent has": "import os, resource as r\nprint(os.getpriority(os.PRIO_PROCESS, 0), "
    "os.sched_getaffinity(0), r.getrlimit(r.RLIMIT_NOFILE))\nabove = os.getppid()\n"
    + _TRY.format("os.setpriority(os.PRIO_PROCESS, above, 3)")
    + "\n"
    + _TRY.format("os.sched_setaffinity(above, {min(os.sched_getaffinity(0))})")
    + "\n"
    + _TRY.format("r.prlimit(above, r.RLIMIT_NOFILE, (30, 30))"),
    "its processor": "import os\nprint(os.sched_getaffinity(0))\n"
    + _TRY.format("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"),
    "process ids": "import os\nprint(os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0))\n"
    "for _ in range(5):\n    p = os.fork()\n    if p == 0: os._exit(0)\n    os.waitpid(p, 0)\n"
    "print(p)",
    "processes": "import os, time\ntry: os.kill(-1, 0); print('others')\n"
    "except OSError: print('alone')\nif os.fork() == 0:\n    os.setsid()\n"
    "    if os.fork() == 0:\n        os.closerange(0, 99)\n        time.sleep(60)\n    os._exit(0)",
    "usage of children": "import os, resource as r\nprint(r.getrusage(r.RUSAGE_CHILDREN)[:2])\n"
    "p = os.fork()\nif p == 0:\n    sum(range(300000))\n    os._exit(0)\nos.waitpid(p, 0)",
    "descriptors": "import os\nn = 0\nfor fd in range(256):\n    try: os.fstat(fd); n += 1\n"
    "    except OSError: pass\nprint(n)\nos.dup(0)\nos.dup2(1, 50)",
    "where standard error ends": "import os\nprint(os.fstat(2).st_size)\nos.write(2, b'x' * 999)",
    "flags of standard error": "import fcntl\nprint(fcntl.fcntl(2, fcntl.F_GETFL))\n"
    "fcntl.fcntl(2, fcntl.F_SETFL, 2048 | 1024)",
    "signals": "import signal\nprint([signal.getsignal(s) for s in (10, 12, 14, 15)], "
    "signal.pthread_sigmask(0, ()), signal.getitimer(0))\nsignal.signal(10, signal.SIG_IGN)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, {12})\nsignal.setitimer(0, 99)",
    "locks": "import fcntl, os\nfd = os.open('.', os.O_RDONLY)\n"
    "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\nprint('free')\n"
    "import time\nif os.fork() == 0: time.sleep(60)",
    "System V memory": "import ctypes\nc = ctypes.CDLL(None)\nprint(c.shmget(7, 4096, 0o600))\n"
    "c.shmget(7, 4096, 0o1600)\nc.semget(7, 1, 0o1600)",
    "sockets without a file": "import socket\ntry:\n    s = socket.socket(socket.AF_UNIX)\n"
    "    s.bind('\\0rlif')\n    print('free')\nexcept OSError as e: print(e.errno)\n"
    "import os, time\nif os.fork() == 0: time.sleep(60)",
    "the name of the process": "import ctypes\nname = ctypes.create_string_buffer(16)\n"
    "c = ctypes.CDLL(None)\nc.prctl(16, name, 0, 0, 0)\nprint(name.value)\n"
    "c.prctl(15, b'other', 0, 0, 0)",
    "hints on the folder": "import fcntl, os\nfd = os.open('.', os.O_RDONLY)\n"
    "try: print(fcntl.fcntl(fd, 1035, bytes(8)))\nexcept OSError as e: print(e.errno)\n"
    + _TRY.format("fcntl.fcntl(fd, 1036, (2).to_bytes(8, 'little'))"),
    "its own folder of /proc": "import os\ntry: print(os.readlink('/proc/self'), "
    "sorted(p for p in os.listdir('/proc') if p.isdigit()))\nexcept OSError as e: print(e.errno)",
    "other processes in /proc": "import os\n"
    "try: print([p for p in os.listdir('/pr' 'oc') if p.isdigit()])\n"
    "except OSError as e: print(e.errno)\n",
}
# What a program still does when its last line has run happens in the same test.
ENDINGS = {
    "a finaliser": "class A:\n    def __del__(self): print('late')\na = A()\nprint('now')",
    "a finaliser in a cycle": "class A:\n    def __del__(self): print('late')\n"
    "a = A()\na.me = a\nprint('now')",
    "the end of a generator": "def g():\n    try: yield\n    finally: print('late')\n"
    "h = g()\nnext(h)\nprint('now')",
    "a function for the end": "import atexit\natexit.register(print, 'late')\nprint('now')",
    "a function for the end after an exit": "import atexit, sys\natexit.register(print, 'late')\n"
    "print('now')\nsys.exit(3)",
    "a thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print('late'))).start()\nprint('now')",
    "a buffer of its own": "import sys, io\nout = io.StringIO()\nsys.stdout = out\n"
    "print('now')\nsys.__stdout__.write(out.getvalue() + 'late')",
    "a child that is waited for": "import os\nprint('now', flush=True)\np = os.fork()\n"
    "if p == 0: print('late', flush=True); os._exit(0)\nos.waitpid(p, 0)",
}


@pytest.fixture(scope="module")
def thorough():
    """A judge that runs every test."""
    with Judge(EXECUTION, run_all_tests=True) as judge:
        yield judge


SHARED = {**PYTHON, **SYSTEM}


@pytest.mark.parametrize("code", SHARED.values(), ids=SHARED)
def test_a_program_cannot_tell_whether_it_has_run_before(thorough, code):
    problem = stdin_problem(*[("", "no program prints this")] * 3)
    outcome = thorough.submit(problem, code).result(timeout=60)
    assert set(outcome.results) == {Verdict.WRONG_ANSWER}, outcome.detail  # they ended normally
    assert len(set(outcome.answers)) == 1, outcome.detail
    # What lasts could last after a test that passes only: ask for what was printed.
    printed = outcome.detail.partition("printed ")[2].rpartition(", expected ")[0]
    problem = stdin_problem(*[("", ast.literal_eval(printed))] * 3)
    assert thorough.submit(problem, code).result(timeout=60).passed


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS)
def test_what_a_program_does_at_its_end_belongs_to_the_test(thorough, code):
    outcome = thorough.submit(stdin_problem(*[("", "now\nlate")] * 3), code).result(timeout=60)
    assert outcome.passed, outcome


def test_a_test_that_fails_changes_nothing_for_later_ones(thorough):
    """Whatever the failure is: wrong, an error, an exit of the process, no end, no memory."""
    problem = stdin_problem(*[(str(n), str(n)) for n in range(6)])
    code = (
        "import os\nn = int(input())\nif n == 0: n = 9\nif n == 1: 1 / 0\nif n == 2: os._exit(1)\n"
        "if n == 3:\n    while True: pass\nif n == 4: b = bytearray(1 << 30)\nprint(n)"
    )
    outcome = thorough.submit(problem, code).result(timeout=60)
    crashed = Verdict.RUNTIME_ERROR
    assert outcome.results == (
        Verdict.WRONG_ANSWER,
        crashed,
        crashed,
        Verdict.TIME_LIMIT,
        Verdict.MEMORY_LIMIT,
        Verdict.PASSED,
    )


def test_a_function_keeps_its_state_and_an_assert_test_finds_it(run):
    """The official rules load a function once: what it remembers is its own."""
    code = "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)"
    assert run(function_problem("f", ("5", "1"), ("5", "2"), ("5", "3")), code).passed
    assert run(assert_problem("f", "assert f(5) == 1", "assert f(5) == 2"), code).passed
