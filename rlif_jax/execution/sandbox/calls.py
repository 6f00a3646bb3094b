"""Calls of a candidate's function, in the candidate's own process. Standard library only.

Whatever runs after the program was loaded is bound to local names beforehand: the program may have
replaced the names of any module.
"""

import builtins
import json
import os
import sys
import types
from collections import UserList

from rlif_jax.execution.sandbox import plain_data
from rlif_jax.execution.sandbox.plain_data import as_number
from rlif_jax.execution.sandbox.protocol import CHANNEL_FD, RECURSION

BUILTINS = builtins.__dict__.copy()


def serve_calls(program: types.CodeType, namespace: dict, name: str, hook) -> None:
    """Load the program, then call its function for each request: `NONCE LENGTH\\n` and arguments.

    One instance of Solution serves all calls and state persists between them, as officially.
    `hook` reports an exception and gives the exit status. Never returns.
    """
    leave, send = os._exit, write_all
    requests = receive_requests(os.read)
    loads, encode = json.loads, json.dumps
    try:
        nonce, text = next(requests)
        exec(program, namespace)
        function = find_function(namespace, name)
        while True:
            value = function(*[loads(line) for line in text.split("\n") if line.strip()])
            try:
                kind, text = "result", encode(plain(value), default=as_number)
            except (TypeError, ValueError, RecursionError) as error:
                reason = f"{type(value).__name__}: {type(error).__name__}"[:300]
                kind, text = "unsupported", encode(reason)
            send(f"{nonce} {kind} {text}\n".encode())
            nonce, text = next(requests)
    except BaseException as error:
        leave(hook(error))


def serve_plain_calls(
    program: types.CodeType, namespace: dict, name: str, hook, own=BUILTINS
) -> None:
    """Load the program, then call the function for each request of a test's source.

    A request is [arguments, keywords] as plain data. The answer is "result" with [value], to which
    the arguments are added where the call has changed them; or "raised", with the name of the
    nearest builtin exception and the message. An exception outside `Exception` ends the process,
    as does MemoryError: `hook` reports it and gives the exit status. `own` are the builtins from
    before the program could replace them. Never returns.
    """
    leave, send = os._exit, write_all
    requests = receive_requests(os.read)
    loads, dumps, decode = map(with_deep_recursion, (json.loads, json.dumps, plain_data.decode))
    encode, encode_result = map(with_deep_recursion, (plain_data.encode, plain_data.encode_result))
    try:
        nonce, text = next(requests)
        exec(program, namespace)
        function = find_function(namespace, name)
        while True:
            given = decode(loads(text))
            try:
                value = function(*given[0], **given[1])
            except MemoryError:
                raise
            except Exception as error:
                kind, answer = "raised", [exception_name(error, own), message_of(error)]
            else:
                try:
                    kind, answer, after = "result", [encode_result(value)], encode(given)
                    answer += [after] * (dumps(after) != text)
                except (TypeError, ValueError, RecursionError) as error:
                    kind, answer = "unsupported", f"{type(value).__name__}: {error}"[:300]
            send(f"{nonce} {kind} {dumps(answer)}\n".encode())
            nonce, text = next(requests)
    except BaseException as error:
        leave(hook(error))


def with_deep_recursion(work, get=sys.getrecursionlimit, set_to=sys.setrecursionlimit):
    """Return `work` for values that nest deeper than the program's recursion limit."""

    def worked(value):
        limit = get()
        set_to(RECURSION)
        try:
            return work(value)
        finally:
            set_to(limit)

    return worked


def exception_name(error: Exception, own: dict) -> str:
    """Return the name of the nearest builtin class of an exception."""
    for kind in type(error).__mro__:
        if own.get(kind.__name__) is kind:
            return kind.__name__
    return "Exception"


def message_of(error: BaseException) -> str:
    """Return the message of an exception, "" when it has none to give."""
    try:
        return str(error)[:300]
    except Exception:
        return ""


def write_all(data: bytes, write=os.write) -> None:
    while data:
        data = data[write(CHANNEL_FD, data) :]


def receive_requests(read):
    """Yield (nonce, text) as they come; end the process at the end of the channel."""
    held = b""
    while True:
        while b"\n" not in held:
            piece = read(CHANNEL_FD, 1 << 16)
            if not piece:
                os._exit(0)
            held += piece
        head, _, held = held.partition(b"\n")
        nonce, length = head.decode().split()
        pieces = [held]
        missing = int(length) - len(held)
        while missing > 0:
            pieces.append(read(CHANNEL_FD, min(missing, 1 << 20)))
            missing -= len(pieces[-1])
        held = b""
        yield nonce, b"".join(pieces).decode("utf-8", "surrogatepass")


def find_function(namespace: dict, name: str):
    """Return `Solution().name`, or the module's own `name`, which the prelude cannot provide.

    A method that the class lacks may be one of its instance alone.
    """
    solution = namespace.get("Solution")
    if callable(solution) and hasattr(solution, name):
        return getattr(solution(), name)
    if name in namespace:
        return namespace[name]
    if callable(solution) and hasattr(instance := solution(), name):
        return getattr(instance, name)
    raise NameError(f"the program defines no function {name!r}")


def plain(value):
    """Return a UserList as a list; anything else unchanged."""
    return list(value) if isinstance(value, UserList) else value
