"""The source of a test of kind "assert", in a process of its own. Standard library only.

The function's name is bound to a proxy: each call goes as plain data to the judge, which asks the
program's process and returns its answer. So this process holds the expected values and nothing of
the program; the program's process holds the program and nothing of the test.
"""

import builtins
import json
import os
import sys
import types

from rlif_jax.execution.sandbox import plain_data
from rlif_jax.execution.sandbox.calls import message_of, receive_requests, write_all
from rlif_jax.execution.sandbox.preamble import PARSE_ONLY

FILE = "test.py"
# Raised inside a loop or a generator of the source, these would look like its normal end.
ENDING = (StopIteration, StopAsyncIteration)
NOTE = "__note_failed_assertion__"
CATCHING = ("Try", "TryStar", "With", "AsyncWith")


def serve_test(program: types.CodeType, namespace: dict, name: str, hook) -> None:
    """Run the test's source; report to the judge how it ended. Never returns.

    That is "passed"; "failed" for an AssertionError, or "error" for another exception, with
    [line, class, message], and whether the program raised later; "raised" for an exception of the
    program's that nothing caught, with [class, message]; "refused" with the reason when a call
    cannot be sent or its answer cannot be read. `hook` reports a MemoryError, and gives the exit
    status.
    """
    calls = _Calls()
    namespace |= {name: calls.proxy(name), NOTE: calls.note}
    try:
        exec(program, namespace)
        calls.end("passed", [])
    except MemoryError as error:
        os._exit(hook(error))
    except BaseException as error:
        calls.end_by(error)


def compile_source(source: str, all_assertions: bool) -> types.CodeType:
    """Compile a test's source; `all_assertions`: so that it continues after one that fails.

    The failed one still counts, and the program's answers to later calls are known, too. A source
    that catches exceptions could notice the difference, and is compiled as it is. Raises what
    `compile` raises.
    """
    tree = compile(source, FILE, "exec", PARSE_ONLY, dont_inherit=True)
    nodes = [tree] if all_assertions else []
    for node in nodes:  # the list grows
        for field in node._fields:
            value = getattr(node, field, None)
            nodes += [
                v for v in (value if type(value) is list else [value]) if hasattr(v, "_fields")
            ]
    if not any(type(node).__name__ in CATCHING for node in nodes):
        for node in nodes:
            for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
                if type(body) is list:
                    body[:] = map(_noted, body)
    return compile(tree, FILE, "exec", dont_inherit=True)


def _noted(statement):
    """Return the statement; an assertion becomes one whose failure is recorded."""
    if type(statement).__name__ != "Assert":
        return statement
    caught = compile(f"try: pass\nexcept AssertionError: {NOTE}()", FILE, "exec", PARSE_ONLY)
    caught.body[0].body = [statement]
    return caught.body[0]


class _Calls:
    """The calls of one test, and how they ended."""

    def __init__(self):
        self._requests = receive_requests(os.read)
        self._nonce, _ = next(self._requests)
        self._raised: tuple[BaseException | None, list] = None, []
        self._failure: tuple[str, list] | None = None

    def proxy(self, name: str):
        """Return a function that stands for the program's function of that name."""

        def call(*arguments, **keywords):
            return self._call(arguments, keywords)

        call.__name__ = call.__qualname__ = name
        return call

    def _call(self, arguments: tuple, keywords: dict):
        try:
            question = json.dumps(plain_data.encode([list(arguments), keywords]))
        except (TypeError, ValueError, RecursionError) as error:
            self.end("refused", f"an argument is not plain data: {error}"[:300])
        self._say("call", question)
        self._nonce, text = next(self._requests)
        kind, _, answer = text.partition(" ")
        try:
            first, *others = json.loads(answer)
            value, more = plain_data.decode_result(first), plain_data.decode(others)
            if kind == "raised":
                self._raised = _exception(value, *more), [value, *more]
            elif more:
                ((new_arguments, new_keywords),) = more
                for old, new in zip(arguments, new_arguments, strict=True):
                    _refill(old, new)
                for key, old in keywords.items():
                    _refill(old, new_keywords[key])
        except plain_data.UNREADABLE:
            self.end("refused", "the function returned a value that cannot be read")
        if kind != "raised":
            return value
        raised, what = self._raised
        if isinstance(raised, ENDING):
            self.end("raised", what)
        raise raised

    def note(self) -> None:
        """Record the failed assertion that is being handled, if it is the source's first."""
        error = sys.exc_info()[1]
        if error is self._raised[0]:
            raise error
        self._failure = self._failure or _described(error)

    def end_by(self, error: BaseException) -> None:
        """Report the exception that ended the source, and end the process."""
        raised, what = self._raised
        self.end(*(("raised", what) if error is raised else _described(error)))

    def end(self, kind: str, what) -> None:
        """Report how the test ended, or an earlier failed assertion, and end the process."""
        if self._failure is not None:
            failed, first = self._failure
            kind, what = failed, [*first, kind == "raised"]
        self._say(kind, json.dumps(what))
        os._exit(0)

    def _say(self, kind: str, text: str) -> None:
        write_all(f"{self._nonce} {kind} {text}\n".encode())


def _described(error: BaseException) -> tuple[str, list]:
    """Describe an exception of the source's own, with the line where it arose."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    kind = "failed" if isinstance(error, AssertionError) else "error"
    return kind, [line, type(error).__name__, message_of(error)]


def _exception(name: str, message: str) -> Exception:
    """Return a builtin exception; raises AttributeError or TypeError for another name."""
    kind = getattr(builtins, name)
    if not issubclass(kind, Exception):
        raise TypeError(name)
    try:
        return kind(message)
    except TypeError:  # UnicodeDecodeError and others need more than a message
        return ValueError(message)


def _refill(old, new) -> None:
    """Copy into an argument the contents that the call left in its copy."""
    if type(old) is not type(new):
        return
    if type(old) is list:
        old[:] = new
    elif type(old) in (dict, set):
        old.clear()
        old.update(new)
