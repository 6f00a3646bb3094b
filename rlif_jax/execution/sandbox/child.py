"""A test's process: it confines itself, then runs one program. Standard library only.

A program that reads standard input runs once and has only its streams. One that defines a function
is loaded once and called with one test's arguments after another, on a channel. What it writes
there, `NONCE KIND JSON`, is a claim: the judge believes only that this value was returned. The
source of an assert test is run like a program, but never in a program's process nor below the same
zygote.
"""

import atexit
import builtins
import collections
import contextlib
import gc
import io
import os
import random
import re
import sys
import types

from rlif_jax.execution.sandbox import asserts, isolation
from rlif_jax.execution.sandbox.calls import serve_calls, serve_plain_calls
from rlif_jax.execution.sandbox.preamble import PARSE_ONLY, run_preamble
from rlif_jax.execution.sandbox.protocol import CHANNEL_FD, OUT_OF_MEMORY, RECURSION, STARTED

PRELUDE_MODULES = (  # of LiveCodeBench's import block, in its order
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json"),
)
# LiveCodeBench's import block, in its order: the star imports, then the plain ones, so that pow and
# sum are the builtins and datetime and bisect are modules.
PRELUDE = "".join(f"from {n} import *\n" for n in (*PRELUDE_MODULES, "builtins", "typing"))
PRELUDE += f"import {', '.join(PRELUDE_MODULES)}\nsys.setrecursionlimit({RECURSION})\n"

SERVE = {
    "functional": serve_calls,
    "assert": serve_plain_calls,
    "test": asserts.serve_test,
}
WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
WRAPPED_IN_FUNCTION = re.compile("outside function|at module level|binding for nonlocal")
REPORTED_FRAMES = 20
WARM_RUNS = 3  # the interpreter specialises code that has run twice
WARM_PROGRAM = """
import sys
from collections import Counter, defaultdict, deque
from math import gcd
class Pair:
    def __init__(self, x): self.x = x
def solve(a):
    d = {}
    for i, x in enumerate(a): d[x] = d.get(x, 0) + 1
    return sum(a), max(a), min(a), sorted(a), len(a), f"{a[0]} {d}"
n = int(input())
a = list(map(int, input().split()))
print(solve(a), Pair(1).x)
print(*a, " ".join(map(str, a)))
"""
INT_DIGITS = 50000  # LiveCodeBench raises the limit of int <-> str to this
PLAIN_LIMITS = sys.getrecursionlimit(), sys.int_info.default_max_str_digits


def load_prelude() -> dict:
    """Run the import block; return the names that it binds, to use in place of the builtins.

    It binds all builtins, too. So a fork need not copy 600 names into its own namespace, whose
    reference counts alone would take half its time.
    """
    names: dict = {"__builtins__": builtins.__dict__.copy()}
    exec(compile(PRELUDE, "prelude", "exec", dont_inherit=True), names)
    return names.pop("__builtins__") | names


def prepare() -> dict:
    """Do once, in the zygote, what every fork would repeat; return the prelude.

    A fork pays for every page of memory that it touches, which is much of the cost of a test.
    """
    open_streams()
    builtins.exit = builtins.quit = sys.exit  # as `site` would, but without state
    sys.set_int_max_str_digits(INT_DIGITS)
    warm_up(load_prelude())
    prelude = load_prelude()  # anew, since it binds the streams
    random.seed(0)  # a verdict should not depend on luck
    sys.argv[:] = ["solution.py"]
    return prelude


def warm_up(prelude: dict) -> None:
    """Run a program as a test would, and reopen the streams.

    The interpreter then looks up and specialises before the forks what it does at first use, and no
    fork pays for the pages that this changes.
    """
    kept = [os.dup(fd) for fd in range(2)]
    for _ in range(WARM_RUNS):
        ends = os.pipe()
        os.write(ends[1], b"3\n1 2 3\n")
        for place, fd in enumerate((ends[0], os.open(os.devnull, os.O_WRONLY))):
            os.dup2(fd, place)
            os.close(fd)
        os.close(ends[1])
        run_main(compile_program(WARM_PROGRAM, "stdin"), prelude, False)
        open_streams()
    for place, fd in enumerate(kept):
        os.dup2(fd, place)
        os.close(fd)
    del sys.modules["__main__"]


def new_module(name: str, names: dict) -> dict:
    """Register an empty module with `names` for builtins; return its namespace."""
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(__builtins__=names, __file__="solution.py")
    return vars(module)


def function_module(kind: str, prelude: dict) -> dict:
    """Return an empty namespace for a function, or for the source of an assert test.

    Prelude and limits are LiveCodeBench's, whose functions are called by functional tests; a
    program with assert tests gets what a new interpreter has.
    """
    if kind == "assert":
        recursion, digits = PLAIN_LIMITS
        sys.setrecursionlimit(recursion)
        sys.set_int_max_str_digits(digits)
    return new_module("solution", prelude if kind == "functional" else builtins.__dict__)


def open_streams() -> None:
    """Open the standard streams as CPython does at start-up under -X utf8, for files and pipes.

    They hold no state until they are used, so they can be opened before a fork installs the
    descriptors of its own test.
    """
    for name, fd, mode, errors in (
        ("stdin", 0, "r", "surrogateescape"),
        ("stdout", 1, "w", "surrogateescape"),
        ("stderr", 2, "w", "backslashreplace"),
    ):
        stream = io.TextIOWrapper(
            open(fd, mode + "b", closefd=False),  # noqa: SIM115
            encoding="utf-8",
            errors=errors,
            newline="\n",
            line_buffering=name == "stderr",
        )
        stream.mode = mode  # pyright: ignore[reportAttributeAccessIssue]  # CPython sets it, too
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def whole_program(job: dict, program: types.CodeType, cell, prelude: dict):
    """In the loader: return a function that runs a program in a fork, given its streams.

    All names are bound beforehand, so that it looks up little: each page that it changes is copied.
    """
    confine = cell.make_confine(job["own_proc"])
    dup2, closerange, setsid = os.dup2, os.closerange, os.setsid
    leave, run, cleanup, files = os._exit, run_main, job["cleanup"], isolation.OPEN_FILES

    def run_test(fds: tuple[int, ...]) -> None:
        stdin, stdout, stderr = fds
        dup2(stdin, 0)
        dup2(stdout, 1)
        dup2(stderr, 2)
        closerange(3, files)
        setsid()
        confine()
        leave(run(program, prelude, cleanup))

    return run_test


def function(job: dict, preamble: str, program: types.CodeType, cell, prelude: dict):
    """In the loader: return a function that serves calls in a fork, given a channel.

    The fork has no standard input, and its output is discarded except for stderr.
    """
    confine, kind, name = cell.make_confine(job["own_proc"]), job["kind"], job["entry_point"]

    def serve(fds: tuple[int, ...]) -> None:
        channel, stderr = fds  # numbers above 3: the loader uses the lower ones
        nothing = os.open(os.devnull, os.O_RDWR)
        for place, fd in enumerate((nothing, nothing, stderr, channel)):
            os.dup2(fd, place)
        os.closerange(CHANNEL_FD + 1, isolation.OPEN_FILES)
        os.setsid()
        confine()
        if job["single_process"] and cell.forbid_forks and cell.forbid_forks():
            raise OSError("the filter that forbids forks could not be installed")
        os.write(CHANNEL_FD, STARTED + b"\n")
        namespace = function_module(kind, prelude)
        if preamble:
            run_preamble(preamble, namespace)
        for own in ("Solution", name):  # the program must define these
            namespace.pop(own, None)
        SERVE[kind](program, namespace, name, report_exception)

    return serve


def compile_program(code: str, kind: str) -> types.CodeType:
    """Compile from text, as the official checker does: no byte-order mark, no other encoding.

    Officially a whole program is the body of a function, so that `return` and `nonlocal` at its top
    level are accepted; they are here, too. Raises what `compile` raises.
    """
    try:
        return compile(code, "solution.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        if kind != "stdin" or not WRAPPED_IN_FUNCTION.search(str(error)):
            raise
    tree = compile(code, "solution.py", "exec", PARSE_ONLY, dont_inherit=True)
    frame = compile(
        "def wrapped_function(): pass\nwrapped_function()", "solution.py", "exec", PARSE_ONLY
    )
    imports = [node for node in tree.body if type(node).__name__.startswith("Import")]
    frame.body[0].body = [node for node in tree.body if node not in imports] or frame.body[0].body
    frame.body[:0] = imports
    return compile(frame, "solution.py", "exec", dont_inherit=True)


def run_main(program: types.CodeType, prelude: dict, cleanup: bool) -> int:
    """Run a whole program in the module __main__, which nothing else holds; return its exit status.

    Any exit by sys.exit is 0, as it is officially. `cleanup`: its objects may act when they are
    deleted.
    """
    leave, hook, end = os._exit, report_exception, finish
    try:
        exec(program, new_module("__main__", prelude))
    except SystemExit as exit:
        if exit.code is not None and not isinstance(exit.code, int):
            with contextlib.suppress(BaseException):
                print(exit.code, file=sys.stderr)
    except BaseException as error:
        leave(hook(error))
    return end(cleanup)


def report_exception(error: BaseException, isinstance=isinstance) -> int:
    """Print the exception that ended the program, as the interpreter would; return the status."""
    status = OUT_OF_MEMORY if isinstance(error, MemoryError) else 1
    with contextlib.suppress(BaseException):
        keep_last_frames(error)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
    return status


def keep_last_frames(error: BaseException) -> None:
    """Cut the tracebacks of an exception and of its causes to their last frames.

    From 3.13 on Python formats each frame in Python, which takes seconds of CPU time for an endless
    recursion: the program would hit its time limit.
    """
    seen, link = set(), error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames: collections.deque = collections.deque(maxlen=REPORTED_FRAMES)
        trace = link.__traceback__
        while trace is not None:
            frames.append(trace)
            trace = trace.tb_next
        link.__traceback__ = frames[0] if frames else None
        link = link.__context__ if link.__cause__ is None else link.__cause__


def finish(cleanup: bool) -> int:
    """Do what the interpreter does at a normal end; return the exit status.

    It joins threads, calls atexit functions, deletes the program's objects (files write their
    buffers) and flushes. Deleting takes a fifth of a small test and is skipped unless `cleanup`.
    Imported modules are not taken apart.
    """
    if threading := sys.modules.get(
        "threading"
    ):  # the zygote does not import it: forks would pay for it
        threading._shutdown()
    if cleanup:
        drop_objects()
    status = 0
    for name in ("stdout", "__stdout__"):
        stream = getattr(sys, name, None)  # a program may have deleted it, or put its own there
        try:
            if stream is not None and not is_closed(stream):
                stream.flush()
        except BaseException:
            status = 120
    return status


def is_closed(stream) -> bool:
    """Whether a stream says that it is closed; one that cannot say so is not, as CPython has it."""
    try:
        return bool(stream.closed)
    except BaseException:
        return False


def drop_objects() -> None:
    """Call atexit functions, flush files, and delete all objects of the program."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(MemoryError):
        flush_files()
    sys.modules.pop("__main__", None)
    gc.collect()


def flush_files() -> None:
    """Flush every open file of the program, text before the bytes below it.

    Garbage collection takes them in any order and may close a file before its buffer is written.
    Objects from before the fork are frozen and not listed.
    """
    writers = [o for o in gc.get_objects() if issubclass(type(o), WRITERS)]
    for writer in sorted(writers, key=lambda o: not issubclass(type(o), io.TextIOWrapper)):
        with contextlib.suppress(BaseException):
            writer.flush()
