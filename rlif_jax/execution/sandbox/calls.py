"""Calls of a candidate's function, in the candidate's own process. Standard library only.

Everything that runs after the program has been loaded is kept in local names beforehand: the
program may have replaced any module's.
"""

import contextlib
import json
import numbers
import os
import types
from collections import UserList
from decimal import Decimal
from fractions import Fraction

from rlif_jax.execution.sandbox.terms import CHANNEL_FD


def serve_calls(program: types.CodeType, namespace: dict, name: str, hook) -> None:
    """Load the program, then call its function for each request: `NONCE LENGTH\\n` and arguments.

    One instance of Solution serves all calls and state persists between them, as officially.
    `hook` reports an exception and gives the exit status. Never returns.
    """
    leave, send = os._exit, write_all
    requests = receive_requests(os.read, json.loads)
    encode = json.dumps
    try:
        nonce, arguments = next(requests)
        exec(program, namespace)
        function = find_function(namespace, name)
        while True:
            value = function(*arguments)
            try:
                kind, text = "result", encode(plain(value), default=as_number)
            except (TypeError, ValueError, RecursionError) as error:
                reason = f"{type(value).__name__}: {type(error).__name__}"[:300]
                kind, text = "unsupported", encode(reason)
            send(f"{nonce} {kind} {text}\n".encode())
            nonce, arguments = next(requests)
    except BaseException as error:
        leave(hook(error))


def write_all(data: bytes, write=os.write) -> None:
    while data:
        data = data[write(CHANNEL_FD, data) :]


def receive_requests(read, loads):
    """Yield (nonce, arguments) as they come; end the process at the end of the channel."""
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
        text = b"".join(pieces).decode("utf-8", "surrogatepass")
        yield nonce, [loads(line) for line in text.split("\n") if line.strip()]


def find_function(namespace: dict, name: str):
    """Return `Solution().name`, or the module's own `name`, which the prelude cannot provide."""
    solution = namespace.get("Solution")
    if callable(solution) and hasattr(solution, name):
        return getattr(solution(), name)
    if name in namespace:
        return namespace[name]
    raise NameError(f"the program defines no function {name!r}")


def plain(value):
    """Return the list that a UserList equals; anything else as it is."""
    return list(value) if isinstance(value, UserList) else value


def as_number(value):
    """Encode the exact numbers that Python holds equal to an int or a float as that."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        return value.item()
    if isinstance(value, complex) and value.imag == 0:
        return value.real
    if isinstance(value, (Decimal, Fraction, numbers.Integral)):
        with contextlib.suppress(OverflowError):
            for exact in (int(value), float(value)):
                if exact == value:
                    return exact
    raise TypeError(f"{type(value).__name__} is no JSON value")
