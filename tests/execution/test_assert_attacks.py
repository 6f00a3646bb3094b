"""Programs that try to pass a test that is Python source without its answers."""

import gc
import os
import time

import pytest
from support.execution.confinement import LEVELS, run_at
from support.execution.host import below, descriptors, settles
from support.execution.judging import assert_problem
from test_isolation import row, workplace
from test_own_attacks import search_for

from rlif_jax import config
from rlif_jax.execution.pool import Judge
from rlif_jax.problem import Verdict

PASSED, WRONG, CRASHED = Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR
SLOW, OUTPUT, MEMORY = Verdict.TIME_LIMIT, Verdict.OUTPUT_LIMIT, Verdict.MEMORY_LIMIT
COMPILE = Verdict.COMPILE_ERROR

# The answers cannot be derived from the arguments. Here is what an exception of the function could
# end early, what an object could answer by itself, and what a value of any kind could satisfy.
SECRET = assert_problem(
    "f",
    "wanted = {1: 'walnut-8213', 2: [60317, 'otter']}\n"
    "assert all(map(lambda n: f(n) == wanted[n], [1, 2]))",
    "assert abs(f(3) - 0.25) < 1e-6 and not f(4) != (True, {7})",
    "def check(candidate):\n    assert candidate(2) == [60317, 'otter']\n\ncheck(f)",
    "assert f(1) == 'walnut-8213'",
)
RIGHT = "def f(n): return {1: 'walnut-8213', 2: [60317, 'otter'], 3: 0.25, 4: (True, {7})}[n]"
NEARLY = RIGHT.replace("otter", "others")

# What helps an attacker to write to the judge as the runner does.
CHANNEL = (
    "import os, sys, json, time, threading\n"
    "def nonce():\n"
    "    frame = sys._getframe()\n"
    "    while frame:\n"
    "        if 'nonce' in frame.f_locals: return frame.f_locals['nonce']\n"
    "        frame = frame.f_back\n"
    "def say(data): os.write(3, data if isinstance(data, bytes) else data.encode())\n"
)
YES = "    def __eq__(self, other): return True\n    __hash__ = None\n"
BADLY = {WRONG, CRASHED}


def says(claim: str) -> str:
    """A function that writes an answer of its own, before the runner can."""
    return f"{CHANNEL}def f(x):\n    say(f'{{nonce()}} {claim}\\n')\n    time.sleep(0.2)\n"


ATTACKS = {
    "lying object": (f"class Yes:\n{YES}def f(x): return Yes()", {WRONG}),
    "lying int": (f"class Yes(int):\n{YES}def f(x): return Yes(3)", {WRONG}),
    "lying text": (f"class Yes(str):\n{YES}def f(x): return Yes('a')", {WRONG}),
    "lying list": (f"class Yes(list):\n{YES}def f(x): return Yes()", {WRONG}),
    "lying dict": (f"class Yes(dict):\n{YES}def f(x): return {{1: Yes()}}", {WRONG}),
    "lying tuple": (f"class Yes(tuple):\n{YES}def f(x): return (Yes(),)", {WRONG}),
    "lying class": (
        "class Meta(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\n"
        "class Yes(metaclass=Meta): pass\ndef f(x): return Yes",
        {WRONG},
    ),
    "mock": ("from unittest.mock import ANY\ndef f(x): return ANY", {WRONG}),
    "lying number": (
        f"class Yes:\n{YES}    ndim = 0\n    def item(self): return Yes()\n"
        "Yes.__module__ = 'numpy'\ndef f(x): return Yes()",
        {WRONG},
    ),
    "match": ("import re\ndef f(x): return re.match('', '')", {WRONG}),
    "rebound match": (
        f"import re\nclass Yes:\n{YES}re.Match = Yes\ndef f(x): return Yes()", {WRONG}),
    "object of the class match": (
        f"import re\nclass Yes:\n{YES}    __class__ = re.Match\ndef f(x): return Yes()", {WRONG}),
    "match inside": ("import re\ndef f(x): return [60317, re.match('', '')]", {WRONG}),
    "match as key": ("import re\ndef f(x): return {re.match('', ''): 1}", {WRONG}),
    "runner's match": (
        f"import sys\nclass Yes:\n{YES}def f(x):\n"
        "    sys._getframe(1).f_globals['plain_data']._MATCH = Yes\n    return Yes()",
        {WRONG},
    ),
    "type": ("def f(x): return int", {WRONG}),
    "class named int": (f"class int:\n{YES}def f(x): return int", {WRONG}),
    "builtin replaced": (
        f"import builtins\nclass Yes:\n{YES}builtins.int = Yes\ndef f(x): return int", BADLY),
    "class with a lying name": (
        f"class Name(str):\n{YES.replace('None', 'str.__hash__')}class C: pass\n"
        "C.__name__ = Name('int')\ndef f(x): return C",
        {WRONG},
    ),
    "object of the class type": (
        f"class Yes:\n{YES}    __class__ = type\n    __name__ = 'int'\ndef f(x): return Yes()",
        {WRONG},
    ),
    "runner's types": (
        f"import sys\nclass Yes:\n{YES}def f(x):\n"
        "    sys._getframe(1).f_globals['plain_data']._NAMES[Yes] = 'Yes'\n    return Yes",
        {WRONG},
    ),
    "reduce": ("class R:\n    def __reduce__(s): return bool, (1,)\ndef f(x): return R()", {WRONG}),
    "exit at load": ("import sys\nsys.exit(0)", {CRASHED}),
    "exit in a call": ("def f(x): raise SystemExit(0)", {CRASHED}),
    "end at load": ("import os\nos._exit(0)", {CRASHED}),
    "end in a call": ("import os\ndef f(x): os._exit(0)", {CRASHED}),
    "end later": (
        "import os, threading\nthreading.Timer(0.05, os._exit, [0]).start()\n"
        "import time\ndef f(x): time.sleep(1)",
        {CRASHED},
    ),
    "atexit": (f"{CHANNEL}import atexit\natexit.register(lambda: say('passed []\\n'))\n"
        "def f(x): sys.exit(0)", {CRASHED}),
    "generator exit": ("def f(x): raise GeneratorExit", {CRASHED}),
    "keyboard": ("def f(x): raise KeyboardInterrupt", {CRASHED}),
    "stop": ("def f(x): raise StopIteration", {CRASHED}),
    "own stop": ("class Stop(StopIteration): pass\ndef f(x): raise Stop('x')", {CRASHED}),
    "stop async": ("def f(x): raise StopAsyncIteration", {CRASHED}),
    "assertion": ("def f(x): raise AssertionError", {CRASHED}),
    "skip": ("import unittest\ndef f(x): raise unittest.SkipTest('x')", {CRASHED}),
    "unprintable": ("class E(Exception):\n    def __str__(self): raise SystemExit(0)\n"
        "def f(x): raise E", {CRASHED}),
    "group": ("def f(x): raise ExceptionGroup('g', [StopIteration()])", {CRASHED}),
    "builtins": (
        "import builtins\nbuiltins.AssertionError = SystemExit\n"
        "builtins.all = builtins.map = builtins.isinstance = lambda *a: [True]\n"
        "builtins.len = lambda x: 0\n"
        "def f(x): return 0",
        BADLY,
    ),
    "json": ("import json\njson.dumps = lambda *a, **k: '[true]'\n"
        "json.JSONEncoder.encode = lambda *a: '[true]'\ndef f(x): return 0", BADLY),
    "runner": (
        "import sys\ndef f(x):\n    own = sys._getframe(1)\n"
        "    own.f_globals['plain_data'].encode = lambda v: True\n"
        "    own.f_globals['exception_name'] = lambda *a: 'StopIteration'\n    raise ValueError",
        BADLY,
    ),
    "says passed": (says("passed []"), BADLY),
    "says failed": (says('failed [1, "AssertionError", ""]'), BADLY),
    "says call": (says("call [[1], {{\"dict\": []}}]"), BADLY),
    "says stop": (says('raised ["StopIteration", ""]'), {CRASHED}),
    "says exit": (says('raised ["SystemExit", "0"]'), BADLY),
    "says builtin": (says('raised ["print", "0"]'), BADLY),
    "says dunder": (says('raised ["__import__", "os"]'), BADLY),
    "says half an error": (says('raised ["UnicodeDecodeError", "x"]'), {CRASHED}),
    "says a list as error": (says('raised [[], []]'), BADLY),
    "says nothing": (says("result []"), BADLY),
    "says too much": (says("result [1, 2, 3, 4]"), BADLY),
    "says other arguments": (says("result [1, [[], {{}}]]"), BADLY),
    "says a strange kind": (says('result [{{"walnut": [1]}}]'), BADLY),
    "says match": (says('result [{{"match": []}}]'), BADLY),
    "says a match of something": (says('result [{{"match": ["walnut-8213"]}}]'), BADLY),
    "says a match inside": (says('result [[60317, {{"match": []}}]]'), BADLY),
    "says a match in the arguments": (says('result [1, [[{{"match": []}}], {{}}]]'), BADLY),
    "says the error match": (says('raised [{{"match": []}}, ""]'), BADLY),
    "says no plain type": (says('result [{{"type": "Exception"}}]'), BADLY),
    "says a list as type": (says('result [{{"type": ["int"]}}]'), BADLY),
    "says a type as error": (says('raised [{{"type": "int"}}, ""]'), BADLY),
    "says two kinds": (says('result [{{"set": [], "tuple": []}}]'), BADLY),
    "says a set of lists": (says('result [{{"set": [[1]]}}]'), BADLY),
    "says a broken dict": (says('result [{{"dict": [[1], 2]}}]'), BADLY),
    "says a bad number": (says('result [{{"int": "0xzz"}}]'), BADLY),
    "says broken bytes": (says('result [{{"bytes": "0"}}]'), BADLY),
    "says a huge range": (says('result [{{"range": [0, 1e400, 1]}}]'), BADLY),
    "says no json": (says("result [walnut"), BADLY),
    "says deep lists": (says('result {"[" * 100000 + "]" * 100000}'), BADLY),
    "says long digits": (says('result [{"9" * 60000}]'), BADLY),
    "says bytes": (
        f"{CHANNEL}def f(x):\n"
        "    say(nonce().encode() + b' result [\"\\xff\\x00\"]\\n')\n    time.sleep(0.2)",
        BADLY,
    ),
    "says two": (says("result [1]\\n{nonce()} result [2]"), BADLY),
    "says it before": (f"{CHANNEL}for _ in range(50): say(os.urandom(16).hex() + ' passed []\\n')\n"
        "def f(x): return 0", {CRASHED}),
    "says it between": (
        f"{CHANNEL}def late():\n    time.sleep(0.1)\n    say('0' * 32 + ' passed []\\n')\n"
        "def f(x):\n    threading.Thread(target=late).start()\n"
        "    time.sleep(0.3 * (x > 1))",
        BADLY,
    ),
    "answers by itself": (
        f"{CHANNEL}def answer():\n    while data := os.read(3, 65536):\n"
        "        say(data.split()[0] + b' passed []\\n')\n"
        "threading.Thread(target=answer, daemon=True).start()\ndef f(x): return 0",
        BADLY,
    ),
    "two processes": (f"{CHANNEL}def f(x):\n    os.fork()\n    return 0", BADLY),
    "closes": ("import os\ndef f(x):\n    os.closerange(0, 99)\n    return 0", BADLY),
    "floods": (f"{CHANNEL}def f(x):\n    while True: say('x' * 65536)", {OUTPUT}),
    "endless": ("def f(x):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass", {SLOW}),
    "iterates without end": ("import itertools\ndef f(x): return itertools.count()", {WRONG}),
    "grows": ("class L(list):\n    def __iter__(self):\n        while True: yield 1\n"
        "def f(x): return L([1])", {MEMORY, SLOW}),
    "cycle": ("def f(x):\n    a = []\n    a.append(a)\n    return a", {WRONG, MEMORY}),
    "no such thing": ("def f(x: return 1", {COMPILE}),
}  # fmt: skip


@pytest.fixture(scope="module")
def judge():
    gc.collect()  # what earlier tests left to it
    execution = config.Execution(workers=1, time_limit_s=0.5, memory_mb=256, output_kb=512)
    with Judge(execution, run_all_tests=True) as judge:
        assert judge.submit(SECRET, RIGHT).result(timeout=120).passed
        yield judge


@pytest.fixture(scope="module")
def idle(judge) -> int:
    """How many processes are below this one while no program runs."""
    counts = []
    for _ in range(50):  # what ran last may still be about to end
        counts.append(len(below(os.getpid())))
        time.sleep(0.01)
    return min(counts)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(judge, idle, name):
    """No test is passed; then come two honest programs, a right one and a wrong one."""
    code, verdicts = ATTACKS[name]
    opened = descriptors()
    outcome = judge.submit(SECRET, code).result(timeout=120)
    assert outcome.verdict in verdicts, outcome
    assert PASSED not in outcome.results, outcome
    outcome.detail.encode("utf-8")  # it can be written to a log
    assert judge.submit(SECRET, RIGHT).result(timeout=120).results == (PASSED,) * 4
    nearly = judge.submit(SECRET, NEARLY).result(timeout=120)
    assert nearly.results == (WRONG, PASSED, WRONG, PASSED)
    assert settles(lambda: len(below(os.getpid())) == idle), below(os.getpid())
    assert descriptors() <= opened


def test_memory_of_a_program_holds_nothing_of_the_source_of_its_test(judge):
    """It finds a word of its own argument there, and none that only the source has."""
    search = search_for("Dingo").rpartition("print(")[0].replace("\n", "\n    ")
    program = (
        f"kept = []\ndef f(x):\n    kept.append(x){search}"
        "return ' '.join(sorted(word.decode() for word in found))"
    )
    source = "Okapi1 = 'Numbat2'\nassert f('Dingo3') == 'Dingo3', 'Quagga4'\nassert f('') != Okapi1"
    outcome = judge.submit(assert_problem("f", source, "f(1)", source), program).result()
    assert outcome.results == (PASSED,) * 3, outcome.detail


def test_processes_and_files_of_the_source_are_out_of_sight(judge):
    """The source leaves a file and signals what it can while the program looks around."""
    source = (
        "import os\nopen('left', 'w').close()\nassert os.listdir('.') == ['left']\n"
        "for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):\n"
        "    if pid not in (1, os.getpid()):\n"
        "        try: os.kill(pid, 9)\n        except OSError: pass\n"
        "assert f() == ([], 0)"
    )
    program = (
        "import os\ndef f():\n    seen = 0\n"
        "    for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):\n"
        "        if pid not in (1, os.getpid(), os.getppid()):\n"
        "            try: os.kill(pid, 0); seen += 1\n            except OSError: pass\n"
        "    return os.listdir('.'), seen"
    )
    outcome = judge.submit(assert_problem("f", source, source), program).result()
    assert outcome.results == (PASSED, PASSED), outcome.detail


REACHES = """
import os, signal
def f(x):
    reached = []
    for pid in range(2, 1 << 16) if x else []:
        if pid == os.getpid():
            continue
        try:
            os.kill(pid, signal.SIGKILL)
            reached.append(pid)
        except OSError: pass
    for pid in filter(str.isdigit, os.listdir('/proc')):
        for name in ('mem', 'environ', 'fd/3', 'cwd/left') if pid != str(os.getpid()) else ():
            try:
                open(f'/proc/{pid}/{name}', 'rb').close()
                reached.append(name)
            except OSError: pass
    return reached
"""


@pytest.mark.parametrize("level", LEVELS)
def test_a_program_reaches_no_source_however_little_shuts_it_in(level):
    """Neither its memory nor its files nor itself, though both may run as one user."""
    source = "open('left', 'w').close()\nassert f({}) == []"
    about = row("reach", [source.format(0), source.format(1)], ["", ""], "f") | {"kind": "assert"}
    programs = [
        ["reaches", about, REACHES, True],
        ["wrong", about, REACHES.replace("return reached", "return reached + [0]"), True],
    ]
    with workplace(0o755) as folder:
        seen = run_at(level, folder, {"allow": True, "programs": programs})
    assert "error" not in seen, seen["error"]
    judged = {name: program["verdict"] for name, program in seen["programs"].items()}
    assert judged == {"reaches": PASSED, "wrong": WRONG}, seen
    assert all(program["after"] == [True, False] * 2 for program in seen["programs"].values())
    assert all(program["companion"] == [True] for program in seen["programs"].values())
    assert all(program["changed"] == {} for program in seen["programs"].values())
    assert seen["left"] == {"processes": [], "files": [], "descriptors": 0}
