"""What the zygote's forked child does: confine itself, then run one program on one input.

Standard library only. The child writes lines `NONCE KIND JSON` to the result descriptor: "started"
before it looks at the program, then at most one of "syntax", "memory", "result", "unsupported".
They are claims of the candidate's own process: the judge believes no success on their strength.
"""

import atexit
import contextlib
import ctypes
import gc
import io
import json
import math
import os
import random
import resource
import sys
import types
from decimal import Decimal
from fractions import Fraction

# LiveCodeBench's import block, in its order: the star imports, then the plain ones, so that pow and
# sum are the builtins and datetime and bisect are modules.
_NAMES = "string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, "
_NAMES += "itertools, functools, operator, io, sys, json"
PRELUDE = "".join(f"from {n} import *\n" for n in [*_NAMES.split(", "), "builtins", "typing"])
PRELUDE += f"import {_NAMES}\nsys.setrecursionlimit(50000)\n"

RESULT_FD = 3
WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
OPEN_FILES = 256
FILE_BYTES = 64 << 20
STACK_BYTES = 112 << 20  # the kernel keeps at least 128 MiB below the stack free of mappings
INT_DIGITS = 50000  # LiveCodeBench raises the limit of int <-> str to this

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 36, 38


def load_prelude() -> dict:
    """Run the import block; return the names that it binds."""
    names: dict = {}
    exec(compile(PRELUDE, "prelude", "exec", dont_inherit=True), names)
    del names["__builtins__"]
    return names


def prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def drop_privileges(uid: int) -> None:
    """Become `uid` when it is not 0, and give up every capability.

    A root without capabilities cannot read the memory of a root that has them.
    """
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    prctl(PR_SET_DUMPABLE, 1)  # a change of uid cleared it: /proc/self would belong to root


def confine(job: dict, uid: int) -> None:
    os.setsid()
    if uid:
        os.chown("work", uid, uid)
        for fd in (1, 2):  # so that /dev/stdout can be opened by name
            with contextlib.suppress(OSError):
                os.fchown(fd, uid, uid)
    os.chdir("work")
    os.environ.clear()
    os.environ["PYTHONHASHSEED"] = "0"
    for kind, value in (
        (resource.RLIMIT_AS, job["memory_bytes"]),
        # A backstop: it counts by timer ticks, which under load may run ahead of the time used.
        (resource.RLIMIT_CPU, 2 * math.ceil(job["cpu_s"]) + 1),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, job["processes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, STACK_BYTES),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    drop_privileges(uid)


def read_all(fd: int) -> str:
    with open(fd, encoding="utf-8", errors="surrogatepass", newline="") as file:
        return file.read()


def take_descriptors(functional: bool, fds: list[int]) -> tuple[str, str]:
    """Put the job's descriptors in their places; return the program and the arguments' text."""
    code_fd, input_fd, result_fd, stderr_fd, stdout_fd = fds
    code = read_all(code_fd)
    text = ""
    if functional:
        text = read_all(input_fd)
        input_fd = os.open("/dev/null", os.O_RDONLY)
    os.dup2(input_fd, 0)
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    os.dup2(result_fd, RESULT_FD, inheritable=False)
    os.closerange(RESULT_FD + 1, 256)
    # As CPython opens them at start-up under -X utf8, for a regular file or a pipe.
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
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    return code, text


def run_test(job: dict, fds: list[int], uid: int, prelude: dict) -> None:
    """Run the program of `job` on its one input, as a process of its own would."""
    functional = job["kind"] == "functional"
    code, text = take_descriptors(functional, fds)
    confine(job, uid)
    sys.set_int_max_str_digits(INT_DIGITS)
    arguments = [json.loads(line) for line in text.split("\n") if line.strip()]
    module = types.ModuleType("solution" if functional else "__main__")
    sys.modules[module.__name__] = module
    namespace = module.__dict__
    sys.argv[:] = ["solution.py"]
    prelude |= {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    namespace |= prelude
    namespace["__file__"] = "solution.py"
    random.seed(0)  # a verdict should not depend on luck
    report = reporter(job["nonce"])
    report("started")
    try:
        program = compile(code.encode(), "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        report("syntax", str(error))
        sys.exit(1)
    try:
        if not functional:
            held = [namespace]
            del module, namespace
            run_main(program, held)
        exec(program, namespace)
        value = find_function(namespace, prelude, job["entry_point"], code)(*arguments)
    except MemoryError:
        report("memory")
        raise
    try:
        answer = json.dumps(value, default=as_number)
    except (TypeError, ValueError, RecursionError) as error:
        report("unsupported", f"{type(value).__name__}: {error}"[:300])
    else:
        report("result", answer, encoded=True)
    os._exit(0)


def run_main(program: types.CodeType, held: list[dict]) -> None:
    """Run a whole program; return only by the exception that ends it, if one does.

    `held` has the only reference to its namespace, so that the namespace can go before the end.
    """
    leave = os._exit
    try:
        exec(program, held[0])
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    leave(finish(held))


def finish(held: list[dict]) -> int:
    """Do what the interpreter does at a normal end; return the exit status.

    That is: join threads, call atexit functions, drop the program's objects (files write what they
    hold), flush. It leaves out taking the imported modules apart, which costs most of a small test.
    """
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(MemoryError):
        flush_files()
    held.clear()
    sys.modules.pop("__main__", None)
    gc.collect()
    status = 0
    for stream in (sys.stdout, sys.stderr, sys.__stdout__):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            status = 120
    return status


def flush_files() -> None:
    """Flush every open file of the program, text before the bytes below it.

    Garbage collection takes them in any order and may close a file below its buffer. What the
    zygote had before the fork is frozen and not listed.
    """
    writers = [o for o in gc.get_objects() if issubclass(type(o), WRITERS)]
    for writer in sorted(writers, key=lambda o: not issubclass(type(o), io.TextIOWrapper)):
        with contextlib.suppress(BaseException):
            writer.flush()


def reporter(nonce: str):
    write, dumps = os.write, json.dumps

    def report(kind: str, payload: str = "", encoded: bool = False) -> None:
        data = f"{nonce} {kind} {payload if encoded else dumps(payload)}\n".encode()
        while data:
            data = data[write(RESULT_FD, data) :]

    return report


def find_function(namespace: dict, prelude: dict, name: str, code: str):
    """Return `Solution().name`, or the module's own `name`; the prelude's names do not count."""
    solution = namespace.get("Solution")
    if callable(solution) and hasattr(solution, name):
        return getattr(solution(), name)
    found = namespace.get(name)
    if found is not None and (name not in prelude or found is not prelude[name]):
        return found
    if found is not None:  # the prelude's own object: did the program bring it in itself?
        import symtable

        with contextlib.suppress(KeyError):
            symbol = symtable.symtable(code, "solution.py", "exec").lookup(name)
            if symbol.is_assigned() or symbol.is_imported():
                return found
    raise NameError(f"the program defines no function {name!r}")


def as_number(value):
    """Encode the exact numbers that Python holds equal to an int or a float as that."""
    if isinstance(value, complex) and value.imag == 0:
        return value.real
    if isinstance(value, (Decimal, Fraction)):
        with contextlib.suppress(OverflowError):
            for plain in (int(value), float(value)):
                if plain == value:
                    return plain
    raise TypeError(f"{type(value).__name__} is no JSON value")
