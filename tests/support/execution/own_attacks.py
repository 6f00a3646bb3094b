"""Attacks on this judge's own design: what each tries, its program, and what may become of it.

All are bounded: at most 300 processes, 100 MB of files and memory far below 2 GB, for seconds.
"""

from dataclasses import dataclass

from rlif_jax.problem import Problem, Verdict
from support.execution.judging import function_problem, stdin_problem

# The answers cannot be derived from the inputs.
SECRET = stdin_problem(("1", "walnut-8213"), ("2", "60317 otter"))
FUNCTION = function_problem("f", ("1", '"walnut-8213"'), ("2", '[60317, "otter"]'))
# Honest programs pass these. An attack on them does harm on its way, or leaves a message: it prints
# 1 where it finds what an earlier run has left.
ECHO = stdin_problem(("7", "7"))
UNTOUCHED = stdin_problem(("", "0"), ("", "0"), ("", "0"))
LONG_CALL = function_problem("f", ("1", "1"), (f'"{"x" * 3_000_000}"', "1"))

PASSED, WRONG, CRASHED = Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR
SLOW, OUTPUT, MEMORY = Verdict.TIME_LIMIT, Verdict.OUTPUT_LIMIT, Verdict.MEMORY_LIMIT
BADLY = {WRONG, CRASHED}


@dataclass(frozen=True)
class Attack:
    """One program, the problem that it is handed in for, and the verdicts that are right."""

    what: str
    problem: Problem
    verdicts: set[Verdict]
    code: str


_NONCE = (
    "import os, sys, time\n"
    "def nonce():\n"
    "    frame = sys._getframe()\n"
    "    while frame:\n"
    "        if 'nonce' in frame.f_locals: return frame.f_locals['nonce']\n"
    "        frame = frame.f_back\n"
    "def say(data): os.write(3, data if isinstance(data, bytes) else data.encode())\n"
)


def _call(what: str, verdicts: set[Verdict], code: str, problem: Problem = FUNCTION) -> Attack:
    """An attack on the channel from inside a function, with means to find the nonce and to write"""
    return Attack(what, problem, verdicts, _NONCE + code)


CHANNEL = {
    "guesses": _call(
        "50 guesses of a nonce, before any call",
        {CRASHED},
        "for _ in range(50): say(os.urandom(16).hex() + ' result true\\n')\ndef f(x): return 0",
    ),
    "started_again": _call(
        "the runner's own first word", BADLY, "say('started\\n')\ndef f(x): return 0"
    ),
    "forged_compile_error": _call(
        "the word of a program that does not compile",
        {Verdict.COMPILE_ERROR, *BADLY},
        "say('syntax \"none\"\\n')\ndef f(x): return 0",
    ),
    "broken_compile_error": _call(
        "the same, of something that is no JSON",
        {Verdict.COMPILE_ERROR, *BADLY},
        "say('syntax {no\\n')\ndef f(x): return 0",
    ),
    "deep_compile_error": _call(
        "the same, nested deeper than a parser can follow",
        {Verdict.COMPILE_ERROR, *BADLY},
        "say('syntax ' + '[' * 30000 + '\\n')\ndef f(x): return 0",
    ),
    "binary_compile_error": _call(
        "the same, with bytes that are no text",
        {Verdict.COMPILE_ERROR, *BADLY},
        "say(b'syntax \"\\xff\\x00\"\\n')\ndef f(x): return 0",
    ),
    "unwritable_compile_error": _call(
        "the same, with a text that no log can hold",
        {Verdict.COMPILE_ERROR, *BADLY},
        "say('syntax \"\\\\ud800\"\\n')\ndef f(x): return 0",
    ),
    "endless_compile_error": _call(
        "the same, cut off by the limit",
        {Verdict.COMPILE_ERROR, CRASHED, OUTPUT},
        "say('syntax \"')\nfor _ in range(100): say(b'x' * 65536)\ndef f(x): return 0",
    ),
    "wrong_kind": _call(
        "to be taken for a whole program that waits for its next input",
        BADLY,
        "def f(x):\n    say(nonce() + ' again {}\\n')\n    time.sleep(9)",
    ),
    "no_payload": _call(
        "an answer without a value", BADLY, "def f(x):\n    say(nonce() + ' result\\n')\n    x / 0"
    ),
    "no_newline": _call(
        "an answer that never ends",
        {OUTPUT},
        "def f(x):\n    say(nonce() + ' result \"')\n    while True: say(b'x' * 65536)",
    ),
    "half_an_answer": _call(
        "an answer whose end never comes",
        {SLOW},
        "def f(x):\n    say(nonce() + ' result \"wal')\n    time.sleep(60)",
    ),
    "not_text": _call(
        "an answer of bytes that are no text",
        BADLY,
        "def f(x):\n    say(nonce().encode() + b' result \"\\xff\\x00\\x80\"\\n')\n"
        "    time.sleep(9)",
    ),
    "deep_answer": _call(
        "an answer nested deeper than a parser can follow",
        BADLY,
        "def f(x):\n    say(nonce() + ' result ' + '[' * 20000 + ']' * 20000 + '\\n')",
    ),
    "odd_numbers": _call(
        "numbers beyond any float, and a key that comes twice",
        BADLY,
        "def f(x):\n    n = '9' * 30000\n"
        '    say(nonce() + f\' result {{"a": 1e999, "a": -{n}, "b": NaN}}\\n\')',
    ),
    "closed": _call(
        "a runner that cannot answer", {CRASHED}, "def f(x):\n    os.close(3)\n    return 0"
    ),
    "shut_down": _call(
        "a judge that cannot ask",
        {CRASHED},
        "import socket\nsocket.socket(fileno=3).shutdown(socket.SHUT_RDWR)\ndef f(x): return 0",
    ),
    "replaced": _call(
        "a runner that talks to itself",
        {SLOW, *BADLY},
        "import socket\na, b = socket.socketpair()\nos.dup2(a.fileno(), 3)\n"
        "b.send(b'0 4\\ntrue')\ndef f(x): return 0",
    ),
    "descriptors": _call(
        "descriptors for the judge to keep",
        BADLY,
        "import socket\nto_judge = socket.socket(fileno=3)\n"
        "for _ in range(200): socket.send_fds(to_judge, [b'x'], [1, 1, 1, 1])\n"
        "def f(x): return 0",
    ),
    "descriptors_while_answering": _call(
        "the same, inside an answer that is otherwise in order",
        BADLY,
        "import socket\ndef f(x):\n    to_judge = socket.socket(fileno=os.dup(3))\n"
        "    socket.send_fds(to_judge, [f'{nonce()} result 0\\n'.encode()], [0, 1, 2, 0])\n"
        "    time.sleep(9)",
    ),
    "not_reading": _call(
        "a judge that waits until its second question is taken",
        {SLOW},
        "def f(x):\n    say(nonce() + ' result 1\\n')\n    time.sleep(60)",
        LONG_CALL,
    ),
    "not_reading_but_talking": _call(
        "a judge busy with single bytes while its second question waits",
        {SLOW, CRASHED, OUTPUT},
        "def f(x):\n    say(nonce() + ' result 1\\n')\n    while True: say(b'x')",
        LONG_CALL,
    ),
    "later_questions": _call(
        "questions read, and answered, by a thread instead of the runner",
        BADLY,
        "import threading\ndef answer():\n    while data := os.read(3, 65536):\n"
        "        say(data.split()[0] + b' result true\\n')\n"
        "threading.Thread(target=answer, daemon=True).start()\ndef f(x): return 0",
    ),
    "stolen_questions": _call(
        "the next question while the first is open",
        {SLOW},
        "def f(x): return next(sys._getframe(1).f_locals['requests'])",
    ),
    "frames_in_a_value": _call(
        "a second frame inside the text of a value",
        BADLY,
        "import json.encoder\n"
        "json.encoder.JSONEncoder.encode = lambda *a: f'0\\n{nonce()} result true'\n"
        "json.encoder.JSONEncoder.iterencode = json.encoder.JSONEncoder.encode\n"
        "def f(x): return {0}",
    ),
    "patched_runner": _call(
        "the runner's own functions, after they have been loaded",
        {SLOW, *BADLY},
        "def f(x):\n    runner = sys._getframe(1).f_globals\n"
        "    runner |= {'plain': str, 'as_number': str, 'write_all': print, 'CHANNEL_FD': 2}\n"
        "    runner['os']._exit = runner['os'].write = lambda *a: None\n    return 0",
    ),
    "two_answer": _call(
        "two processes that answer the same question",
        BADLY,
        "def f(x):\n    os.fork()\n    return 0",
    ),
    "lying_numpy": _call(
        "a value that takes itself for a number of numpy's",
        BADLY,
        "class Yes:\n    ndim = 0\n    def item(self): return Yes()\n"
        "    def __eq__(self, other): return True\n"
        "Yes.__module__ = 'numpy'\ndef f(x): return Yes()",
    ),
    "lying_array": _call(
        "an array of numpy's whose contents lie",
        BADLY,
        "import numpy\nclass Yes(numpy.ndarray):\n    ndim = 0\n    def item(self): return True\n"
        "    def __eq__(self, other): return True\n    def __array__(self): return self\n"
        "def f(x): return numpy.zeros(2).view(Yes)",
    ),
    "lying_class": _call(
        "a metaclass that says yes to everything",
        BADLY,
        "import collections, numbers\nclass Meta(type):\n"
        "    def __instancecheck__(cls, other): return True\n"
        "    def __getattribute__(cls, name): raise SystemExit(0)\n"
        "class Yes(metaclass=Meta): pass\nnumbers.Integral.register(Meta)\n"
        "collections.UserList = Yes\ndef f(x): return Yes",
    ),
    "endless_mapping": _call(
        "a mapping whose items never end",
        {MEMORY, SLOW, *BADLY},
        "class Endless(dict):\n    def items(self):\n        while True: yield 'k' * 1000, 0\n"
        "def f(x): return Endless(a=1)",
    ),
    "work_in_a_child": _call(
        "CPU time that another process uses for this one",
        {SLOW},
        "def f(x):\n    out, into = os.pipe()\n    if os.fork() == 0:\n        os.close(out)\n"
        "        while time.process_time() < 1.3: pass\n        os.write(into, b'1')\n"
        "        os._exit(0)\n    return int(os.read(out, 1))",
        function_problem("f", ("1", "1")),
    ),
    "again_by_itself": Attack(
        "the channel, from a text in which every word is innocent",
        SECRET,
        BADLY,
        "import random\nto = random._os\nfor fd in range(3, 20):\n    try:\n"
        "        to.write(fd, b'started\\n0 again {}\\n' * 3)\n    except OSError: pass\nprint(0)",
    ),
}
