"""Plain data as JSON: what passes between the process of a program and that of a test's source.

Unlike JSON it keeps tuples from lists and sets from both, has keys of any kind, and loses no digit.
None, booleans, floats, texts and lists stand for themselves, integers too while they are short;
everything else is an object of one member, {"tuple": [...]}. Decoded values are of builtin types,
or are these types themselves, or one `Match`, so that no code of a program ever runs. Standard
library only.
"""

import contextlib
import numbers
import re
from collections import UserList
from decimal import Decimal
from fractions import Fraction

# What `decode` raises for a tree that `encode` did not make.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_ITSELF = (type(None), bool, float, str)
_SHORT = 1 << 63
_ITEMS = {"tuple": tuple, "set": set, "frozenset": frozenset}
_BASES = (int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
_TYPES = {kind.__name__: kind for kind in (*_BASES, bool, range, type, type(None))}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_MATCH = re.Match  # as it was before a program could replace it


class Match:
    """A match of `re` that a program returned: true, and equal only to itself."""

    __slots__ = ()


def encode(value):
    """Return the JSON tree of a value.

    An instance of a subclass (Counter, namedtuple, IntEnum) counts as its builtin base, a UserList
    as a list, and an exact number of another kind (Fraction, numpy's scalars) as the int or float
    that it equals, as in functional tests. A type of plain data is encoded by its name. Raises
    TypeError for everything else.
    """
    kind = type(value)
    if kind in _ITSELF:
        return value
    if kind is int:
        return value if -_SHORT < value < _SHORT else {"int": hex(value)}
    if kind is list:
        return [encode(item) for item in value]
    if kind.__name__ in _ITEMS and kind is _ITEMS[kind.__name__]:
        return {kind.__name__: [encode(item) for item in value]}
    if kind is dict:
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is range:
        return {"range": [encode(end) for end in (value.start, value.stop, value.step)]}
    # Its metaclass first: one of a program's own may lie about equality and hash.
    if kind is type and value in _NAMES:
        return {"type": _NAMES[value]}
    if isinstance(value, UserList):
        return encode(list(value))
    for base in _BASES:
        if issubclass(kind, base):
            return encode(base(value))
    return encode(as_number(value))


def decode(tree):
    """Return the value of a JSON tree; raises one of UNREADABLE for any other tree."""
    if type(tree) in _ITSELF or type(tree) is int:
        return tree
    if type(tree) is list:
        return [decode(item) for item in tree]
    ((kind, content),) = tree.items()
    if kind in _ITEMS:
        return _ITEMS[kind]([decode(item) for item in content])
    if kind == "dict":
        return {decode(key): decode(item) for key, item in content}
    if kind == "int":
        return int(content, 16)
    if kind == "complex":
        return complex(*content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "range":
        return range(*[decode(end) for end in content])
    if kind == "type":
        return _TYPES[content]
    raise ValueError(kind)


def encode_result(value):
    """As `encode`, for a returned value, which may be a match of `re`."""
    return {"match": []} if type(value) is _MATCH else encode(value)


def decode_result(tree):
    """As `decode`, for a tree of `encode_result`: each match is a new `Match`."""
    return Match() if tree == {"match": []} else decode(tree)


def as_number(value):
    """Return an exact number of another kind as the int or float that it equals."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        return value.item()
    if isinstance(value, complex) and value.imag == 0:
        return value.real
    if isinstance(value, (Decimal, Fraction, numbers.Integral)):
        with contextlib.suppress(OverflowError):
            for exact in (int(value), float(value)):
                if exact == value:
                    return exact
    raise TypeError(f"{type(value).__name__} is not a JSON value")
