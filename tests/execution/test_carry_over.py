"""Which programs may run on several inputs in one process: they can carry nothing over.

A text that is refused wrongly costs a process for each test; one that is accepted wrongly lets a
program pass a test because of an earlier one.
"""

import pytest
from judging import EXECUTION, stdin_problem
from official import problem_of, read_rows

from rlif_jax.execution.pool import Judge
from rlif_jax.execution.sandbox.carry_over import carries_nothing_over
from rlif_jax.problem import Verdict

PAIRS = (("3\n1 2 3\n", "6\n"), ("2\n5 5\n", "10\n"), ("1\n-4\n", "-4\n"))
_READ = "n = int(input())\na = list(map(int, input().split()))\n"

ORDINARY = {
    "plain": _READ + "print(sum(a))",
    "main": "import sys\ninput = sys.stdin.readline\ndef main():\n    n = int(input())\n"
    "    a = [int(x) for x in input().split()]\n    total = 0\n    for x in a:\n"
    "        total += x\n    print(total)\nif __name__ == '__main__':\n    main()",
    "read_all": "import sys\ndata = sys.stdin.read().split()\nprint(sum(map(int, data[1:])))",
    "buffer": "import sys\ndata = sys.stdin.buffer.read().split()\n"
    "sys.stdout.write(str(sum(int(x) for x in data[1:])) + '\\n')",
    "from_sys": "from sys import stdin\nn, a = (line.split() for line in stdin)\n"
    "print(sum(map(int, a)))",
    "recursion": "import sys\nsys.setrecursionlimit(10**6)\n" + _READ + "def f(i):\n"
    "    return a[i] + f(i + 1) if i < n else 0\nprint(f(0))",
    "collections": "from collections import deque, defaultdict, Counter\n" + _READ + "d = deque()\n"
    "c = Counter(a)\ng = defaultdict(list)\nfor x in a:\n    d.append(x)\n    g[x].append(1)\n"
    "s = 0\nwhile d: s += d.popleft()\nprint(s)",
    "heapq": "import heapq\n" + _READ + "h = []\nfor x in a: heapq.heappush(h, x)\ns = 0\n"
    "while h: s += heapq.heappop(h)\nprint(s)",
    "math": "import math\nfrom math import gcd\n" + _READ + "g = 0\nfor x in a: g = gcd(g, x)\n"
    "print(sum(a) if math.sqrt(4) == 2 and g > 0 else 0)",
    "cache": "from functools import lru_cache\n" + _READ + "@lru_cache(None)\ndef f(i):\n"
    "    return 0 if i == n else a[i] + f(i + 1)\nprint(f(0))",
    "itertools": "import itertools\nfrom itertools import accumulate\n" + _READ + "print(list("
    "accumulate(a))[-1] if list(itertools.permutations(a)) else 0)",
    "class": _READ + "class Node:\n    def __init__(self, x, rest=None):\n        self.x = x\n"
    "        self.rest = rest\nhead = None\nfor x in a: head = Node(x, head)\ns = 0\n"
    "while head:\n    s += head.x\n    head = head.rest\nprint(s)",
    "bisect": "from bisect import bisect_left\n" + _READ + "a.sort()\n"
    "print(sum(a) + bisect_left(a, -10**9))",
    "string": "import string\n" + _READ + "print(sum(a), end='\\n')\n"
    "assert string.ascii_lowercase[0] == 'a'",
    "numbers": _READ + "MOD = 10**9 + 7\ntotal = 0\nfor x in a: total = (total + x) % MOD\n"
    "print(total if total <= MOD // 2 else total - MOD)",
    "try": "while True:\n    try:\n        n = int(input())\n        a = input().split()\n"
    "    except EOFError:\n        break\n    print(sum(map(int, a)))",
    "exit": "import sys\n" + _READ + "print(sum(a))\nsys.exit(0)",
}

_COUNT = "try: n = {0}\nexcept AttributeError: n = 0\n{1}\nprint(n)"
# Programs that print how often they have run before, each with the way that it knows.
CARRIERS = {
    "an attribute of a module": _COUNT.format("math.k", "math.k = n + 1"),
    "of a module by another name": "import math as m\n" + _COUNT.format("m.k", "m.k = n + 1"),
    "of a module in a variable": "m = math\n" + _COUNT.format("m.k", "m.k = n + 1"),
    "of a module in a parameter": "def f(m):\n    try: m.k += 1\n"
    "    except AttributeError: m.k = 1\n    return m.k\nprint(f(math) - 1)",
    "assigned in a tuple": _COUNT.format("math.k", "math.k, z = n + 1, 0"),
    "assigned in a list": _COUNT.format("math.k", "[math.k, z] = n + 1, 0"),
    "assigned in parentheses": _COUNT.format("math.k", "(math.k) = n + 1"),
    "assigned with a type": _COUNT.format("math.k", "math.k: int = n + 1"),
    "assigned by a loop": _COUNT.format("math.k", "for z, math.k in [(0, n + 1)]: pass"),
    "assigned by a comprehension": _COUNT.format("math.k", "[0 for math.k in [n + 1]]"),
    "assigned over two lines": _COUNT.format("math.k", "math\\\n.k = n + 1"),
    "assigned over lines in parentheses": _COUNT.format("math.k", "(math\n.k) = n + 1"),
    "assigned after a semicolon": _COUNT.format("math.k", "z = 0; math.k = n + 1"),
    "an added attribute": "try: math.k += 1\nexcept AttributeError: math.k = 1\nprint(math.k - 1)",
    "a deleted one": "try:\n    del math.pi\n    print(0)\nexcept AttributeError: print(1)",
    "one deleted beside another": "class A: k = 1\ntry:\n    del A.k, math.pi\n    print(0)\n"
    "except AttributeError: print(1)",
    "an attribute of a class of the library": "from collections import Counter\n"
    + _COUNT.format("Counter.k", "Counter.k = n + 1"),
    "of a class of the prelude": _COUNT.format("Counter.k", "Counter.k = n + 1"),
    "of the class of a value": "T = type(Counter())\n" + _COUNT.format("T.k", "T.k = n + 1"),
    "of a base class": "from fractions import Fraction\nclass A(Fraction): pass\nT = A.mro()[1]\n"
    + _COUNT.format("T.k", "T.k = n + 1"),
    "of a function of the library": _COUNT.format("namedtuple.k", "namedtuple.k = n + 1"),
    "of a type's alias": "try: n = int(List._name)\nexcept ValueError: n = 0\n"
    "List._name = str(n + 1)\nprint(n)",
    "a module inside a module": _COUNT.format("collections._sys.k", "collections._sys.k = n + 1"),
    "the same in a variable": "c = collections._sys\n" + _COUNT.format("c.k", "c.k = n + 1"),
    "the operating system, by way of random": "import random\ne = random._os.environ\n"
    "n = int(e.get('k', 0))\ne.update(k=str(n + 1))\nprint(n)",
    "builtins, by way of enum": "import enum\n"
    + _COUNT.format("enum.bltns.k", "enum.bltns.k = n + 1"),
    "a list of sys in the prelude": "n = len(orig_argv)\norig_argv.append('x')\nprint(n)",
    "a namespace of sys": _COUNT.format("implementation.k", "implementation.k = n + 1"),
    "a setting of sys": "n = getdlopenflags()\nsetdlopenflags(n + 1)\nprint(n)",
    "another": "n = get_coroutine_origin_tracking_depth()\n"
    "set_coroutine_origin_tracking_depth(n + 1)\nprint(n)",
    "the end of standard error": "import sys\nn = sys.stderr.tell()\nsys.stderr.write('x')\n"
    "sys.stderr.flush()\nprint(n)",
    "the table of overloads": "def f(): pass\nn = [g() for g in get_overloads(f)]\n"
    "n = n[0] if n else 0\n@overload\ndef f(n=n): return n + 1\nprint(n)",
    "update_wrapper": "class A: pass\nA.k = 1\n"
    + _COUNT.format("math.k", "A.k = n + 1\nupdate_wrapper(math, A, ['k'], [])"),
    "wraps": "class A: pass\n" + _COUNT.format("math.k", "A.k = n + 1\nwraps(A, ['k'], [])(math)"),
    "a formatter's fields": "field = '0._' '_globals_' '_'\n"
    "d = string.Formatter().get_field(field, (namedtuple,), {})[0]\n"
    "n = d.get('k', 0)\nd.update(k=n + 1)\nprint(n)",
    "an enumeration in another module": "import enum\ntry: math.k; n = 1\n"
    "except AttributeError: n = 0\nE = enum.Enum('E', 'k', module='ma' 'th')\n"
    "enum.global_enum(E)\nprint(n)",
    "the table of copies": "n = len(copy.dispatch_table)\ncopy.dispatch_table.update({n: 1})\n"
    "print(n)",
    "an abstract class": "import numbers\nn = isinstance('', numbers.Number)\n"
    "numbers.Number.register(str)\nprint(int(n))",
    "an abstract class of collections": "n = isinstance(0, collections.abc.Sized)\n"
    "collections.abc.Sized.register(int)\nprint(int(n))",
    "the cache of patterns": "import re\nn = len(re._cache)\nre.compile('a' * n)\nprint(n)",
    "the count of a cache": "import re\nnames = ('_compile_repl', '_compile_template')\n"
    "cache = [vars(re)[n] for n in names if n in vars(re)][0]\n"
    "print(cache.cache_info().misses)\nre.sub('a', 'b\\\\g<0>', 'a')",
    "a module as a default": "def f(math=math):\n    try: math.k += 1\n"
    "    except AttributeError: math.k = 1\n    return math.k\nprint(f() - 1)",
    "a module in a comprehension": "m = [math for math in [math]][0]\n"
    + _COUNT.format("m.k", "m.k = n + 1"),
    "a module in a class body": "def f(math=0):\n    class A:\n        math = math\n"
    "    return A.math\nm = f()\n" + _COUNT.format("m.k", "m.k = n + 1"),
    "a module bound in passing": "def f(x=(math := math)): return math\nm = f()\n"
    + _COUNT.format("m.k", "m.k = n + 1"),
    "a module in an annotation": "class A:\n    def __getitem__(self, m): self.m = m\n"
    "a = A()\nx: a[math] = 0\nm = a.m\n" + _COUNT.format("m.k", "m.k = n + 1"),
    "a field of a dataclass": "from dataclasses import dataclass, field\nx = field()\n"
    "@dataclass\nclass A: a: math = x\nm = x.type\n" + _COUNT.format("m.k", "m.k = n + 1"),
    "an error's object": "try: math.no\nexcept AttributeError as e: m = e.obj\n"
    + _COUNT.format("m.k", "m.k = n + 1"),
    "a key of a cache of patterns": "class S(str):\n    n = 0\n"
    "    def __hash__(self): return 7\n"
    "    def __eq__(self, other):\n        self.n = other.n + 1\n        return False\n"
    "s = S('b')\nre.sub('a', s, 'a')\nprint(s.n)",
    "a key of a cache of types": "class T:\n    n = 0\n    def __call__(self): pass\n"
    "    def __hash__(self): return 7\n"
    "    def __eq__(self, other):\n        try: self.n = other.n + 1\n"
    "        except AttributeError: pass\n        return False\n"
    "t = T()\nx: List[t] = 0\nprint(t.n)",
    "an annotation that is evaluated": "import math\nclass A: k: 'set' 'attr(math, \"k\", 1)'\n"
    "try: math.k; n = 1\nexcept AttributeError: n = 0\n"
    "try: get_type_hints(A)\nexcept TypeError: pass\nprint(n)",
    "a generator's frame": "def g(): yield\nb = g().gi_frame.f_builtins\nn = b.get('k', 0)\n"
    "b.update(k=n + 1)\nprint(n)",
    "the references to a text": "n = getrefcount('abcdefgh')\nre.compile('abcdefgh')\nprint(n)",
    "a decorator of the library": "import dataclasses\n"
    "print(int(repr(Random(1))[0] != '<'))\ndataclasses.dataclass(Random)",
}
REFUSED = {
    "sys.stdin": "import sys\nsys.stdin = open_as_text",
    "sys.stdout": "import sys\nsys.stdout, x = 1, 2",
    "sys by another name": "import sys as s\ns.stdout = 1",
    "sys in a variable": "import sys\ns = sys\ns.stdout = 1",
    "sys, all of it": "from sys import *",
    "modules": "from sys import modules",
    "modules by way of sys": "import sys\nsys.modules",
    "for": "import sys\nfor sys.x in [1]: pass",
    "with": "import sys\nwith a as sys.x: pass",
    "os": "import os\nos.write(1, b'x')",
    "os after another": "import math, os",
    "os after a semicolon": "x = 1; import os",
    "os after a colon": "if 1: import os",
    "os over two lines": "import \\\n os",
    "os, a part": "from os import path as p",
    "os.path": "import os.path",
    "collections.abc": "import collections.abc",
    "relative": "from . import x",
    "__import__": "__import__('os')",
    "builtins": "import builtins",
    "import in an exec": "exec('import os')",
    "import in an eval": "eval('__imp' 'ort__(\"os\")')",
    "getattr": "getattr(math, 'x')",
    "setattr": "setattr(math, 'x', 1)",
    "vars": "vars(math)['x'] = 1",
    "globals": "globals()",
    "look-alike": "\uff45val('1')",
    "look-alike attribute": "import math\nmath.\uff58 = 1",
    "look-alike import": "from \uff4fs import path",
    "dunder": "().__class__.__base__.__subclasses__()",
    "dunder of a function": "def f(): pass\nf.__globals__",
    "open": "open(0)",
    "io.open": "import io\nio.open(1, 'w')",
    "io.FileIO": "import io\nio.FileIO(3)",
    "the raw stream": "import sys\nsys.stdout.buffer.raw.truncate(0)",
    "json": "import json\njson.dumps = 1",
    "json of the prelude": "json.dumps = 1",
    "threading": "import threading",
    "gc": "import gc",
    "atexit": "import atexit",
    "ctypes": "import ctypes",
    "decimal": "import decimal\ndecimal.getcontext().prec = 5",
    "asyncio": "import asyncio",
    "numpy": "import numpy as np",
    "attrgetter": "operator.attrgetter('x')",
    "settrace": "settrace(print)",
}


@pytest.fixture(scope="module")
def thorough():
    with Judge(EXECUTION, run_all_tests=True) as judge:
        yield judge


@pytest.mark.parametrize("code", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_programs_run_on_all_inputs_in_one_process(code):
    assert carries_nothing_over(code)
    assert not carries_nothing_over(code + "\nif 0: exec")


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_programs_that_reach_beyond_their_own_names_do_not(code):
    assert not carries_nothing_over(code)


@pytest.mark.parametrize("code", CARRIERS.values(), ids=CARRIERS)
def test_a_program_cannot_tell_whether_it_has_run_before(thorough, code):
    problem = stdin_problem(*[("", "")] * 3)
    outcome = thorough.submit(problem, code).result(timeout=60)
    assert set(outcome.results) == {Verdict.WRONG_ANSWER}, outcome.detail
    # The answers that count are those of runs that pass: ask for what a second run would print.
    printed = outcome.detail.partition("printed '")[2].partition("\\n'")[0]
    later = stdin_problem(("", printed), ("", str(int(printed) + 1)), ("", str(int(printed) + 2)))
    outcome = thorough.submit(later, code).result(timeout=60)
    assert outcome.results == (Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.WRONG_ANSWER)
    assert not carries_nothing_over(code)


@pytest.mark.parametrize("code", ORDINARY.values(), ids=ORDINARY)
@pytest.mark.parametrize("change", ["", "\nprint(end='x')", "\nif n == 2: 1 / 0"])
def test_verdicts_are_those_of_a_process_for_each_test(thorough, code, change):
    """Right and wrong programs, and ones that fail one test of three."""
    problem = stdin_problem(*PAIRS)
    code = code.removesuffix("\nsys.exit(0)") + change
    together = thorough.submit(problem, code).result(timeout=60)
    apart = thorough.submit(problem, code + "\nif 0: exec").result(timeout=60)
    assert (together.results, together.answers, together.detail) == (
        apart.results,
        apart.answers,
        apart.detail,
    )
    assert together.passed or change


def _several() -> dict:
    rows = read_rows("cases.jsonl")
    return {
        name: row
        for name, row in rows.items()
        if row["code"].strip()
        and carries_nothing_over(row["code"])
        and "tle" not in name
        and (problem := problem_of(row)).entry_point is None
        and len(problem.tests) > 1
    }


@pytest.mark.parametrize("name", SEVERAL := _several())
def test_verdicts_on_cases_are_those_of_a_process_for_each_test(thorough, name):
    problem = problem_of(SEVERAL[name])
    together = thorough.submit(problem, SEVERAL[name]["code"]).result(timeout=60)
    apart = thorough.submit(problem, SEVERAL[name]["code"] + "\nif 0: exec").result(timeout=60)
    assert (together.results, together.answers) == (apart.results, apart.answers)


def test_cases_of_several_tests_are_many():
    assert len(SEVERAL) >= 20
