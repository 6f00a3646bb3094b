"""Programs that can carry nothing over from one run to the next, by their syntax tree.

Such a program may run on all inputs of a problem in one process, with fresh streams and a fresh
namespace each time, and cannot tell that from a process for each. It keeps to names of its own and
to things of the library that hold no state. What it names of the library is looked up: immutable
things may be used freely; Python functions and classes, on which attributes could be hung, may only
be called; modules only lead to these. So no expression of the program ever is a library object that
could be changed. Standard library only.
"""

import ast
import builtins
import functools
import importlib
import re
import sys
import types
import typing

from rlif_jax.execution.sandbox.terms import PRELUDE_MODULES

MODULES = (
    *("array", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "fractions"),
    *("functools", "heapq", "itertools", "math", "operator", "random", "re", "statistics"),
    *("string", "typing"),
)
# All that may be used of these: streams are new for each run, the recursion limit is set anew.
_ONLY = {
    "sys": {
        "stdin",
        "stdout",
        "setrecursionlimit",
        "getrecursionlimit",
        "maxsize",
        "exit",
        "version_info",
    },
    "io": {"BytesIO", "StringIO"},
}
# What reaches past the names that are written out.
_NEVER = {
    *("attrgetter", "methodcaller", "breakpoint", "compile", "delattr", "eval", "exec", "getattr"),
    *("globals", "help", "id", "locals", "open", "setattr", "type", "vars", "__import__"),
    *("_os", "__build_class__", "__loader__"),
}
# Python functions and classes, on which attributes could be hung: they may be called only.
_CALLED = {
    "collections": ("Counter", "OrderedDict", "namedtuple"),
    "copy": ("copy", "deepcopy"),
    "dataclasses": ("dataclass",),
    "fractions": ("Fraction",),
    "functools": ("cache", "lru_cache", "total_ordering", "cmp_to_key"),
    "heapq": ("merge", "nlargest", "nsmallest"),
    "random": (
        "Random",
        "choice",
        "choices",
        "randint",
        "randrange",
        "sample",
        "seed",
        "shuffle",
        "uniform",
    ),
    "re": (
        "compile",
        "escape",
        "findall",
        "finditer",
        "fullmatch",
        "match",
        "search",
        "split",
        "sub",
    ),
    "statistics": ("mean", "median", "mode"),
    "typing": ("Counter", "OrderedDict", "DefaultDict", "Deque"),
}
OWN_DUNDERS = {
    *("__name__", "__init__", "__slots__", "__repr__", "__str__", "__call__", "__lt__", "__le__"),
    *("__eq__", "__ne__", "__gt__", "__ge__", "__bool__", "__len__", "__iter__"),
    *("__next__", "__getitem__", "__setitem__", "__contains__", "__add__", "__sub__", "__mul__"),
    *("__neg__", "__iadd__", "__radd__", "__rmul__", "__truediv__", "__floordiv__", "__mod__"),
    *("__pow__", "__post_init__"),
}
# Attributes that lead from a generator, a traceback or a function to its frame and on.
_FRAMES = re.compile("(?:gi|cr|ag|tb|f|co)_")
_STREAM = {
    "raw",
    "tell",
    "seek",
    "truncate",
    "detach",
    "close",
    "fileno",
    "reconfigure",
    "mro",
    "register",
}
_IMMUTABLE = (int, float, complex, str, bytes, type(None), frozenset, range, type(NotImplemented))
_ANNOTATION = (
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.Tuple,
    ast.List,
    ast.Constant,
    ast.Load,
    ast.BinOp,
    ast.BitOr,
)
_SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LONGEST = 20_000  # characters; the check must take no time worth mentioning


@functools.cache
def _library() -> tuple[dict, dict, frozenset, frozenset]:
    """Return the modules by name, what the prelude binds, and two sets of identities.

    They are of the things that may be called only, and of the functions of sys that are refused.
    """
    modules = {name: importlib.import_module(name) for name in (*MODULES, *_ONLY)}
    called = {id(getattr(modules[m], n)) for m, names in _CALLED.items() for n in names}
    prelude: dict = {}
    plain = [importlib.import_module(name) for name in PRELUDE_MODULES]
    for module in (*plain, builtins, typing):
        prelude |= {name: getattr(module, name) for name in _public(module)}
    prelude |= vars(builtins)
    prelude |= {module.__name__: module for module in plain}
    refused = {id(f) for n, f in vars(sys).items() if n not in _ONLY["sys"] and callable(f)}
    return modules, prelude, frozenset(called), frozenset(refused)


def _public(module: types.ModuleType) -> list[str]:
    return getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])


def learn_library() -> None:
    """Look the library up ahead of the first program."""
    _library()


def carries_nothing_over(code: str) -> bool:
    """Tell whether a program is seen to keep nothing beyond its own namespace."""
    if len(code) > LONGEST:
        return False
    try:
        _Check(ast.parse(code)).walk()
    except (_Refused, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class _Refused(Exception):
    """The program could carry something over."""


class _Check:
    def __init__(self, tree: ast.Module):
        self._modules, prelude, self._callable, self._of_sys = _library()
        self._tree, self._names = tree, dict(prelude)
        self._nodes = list(ast.walk(tree))
        classes = {n.name for n in self._nodes if isinstance(n, ast.ClassDef)}
        stored = set()
        for node in self._nodes:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                stored.add(node.id)
            elif isinstance(node, ast.arg):
                stored.add(node.arg)
            elif isinstance(node, (ast.FunctionDef, ast.ExceptHandler)) and node.name:
                stored.add(node.name)
        self._classes, self._stored = classes - stored, stored | classes

    def walk(self) -> None:
        """Raise _Refused at the first thing that could carry over."""
        for node in self._nodes:
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
        self._check_names()

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name not in self._modules:
                raise _Refused
            self._names[alias.asname or alias.name] = self._modules[alias.name]

    def _import_from(self, node: ast.ImportFrom) -> None:
        if node.level or node.module not in self._modules:
            raise _Refused
        module = self._modules[node.module]
        for alias in node.names:
            if alias.name == "*":
                if node.module in _ONLY:
                    raise _Refused
                self._names |= {n: getattr(module, n) for n in _public(module)}
            else:
                thing = getattr(module, alias.name, module)
                if node.module != "typing":
                    self._member(node.module, alias.name, called=True)
                self._names[alias.asname or alias.name] = thing

    def _check_names(self) -> None:
        todo: list = [(self._tree, frozenset(), False)]  # node, local names, whether it is called
        while todo:
            node, own, called = todo.pop()
            if isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)):
                raise _Refused
            if isinstance(node, ast.Name):
                self._name(node, own, called)
            elif isinstance(node, ast.Attribute):
                if not self._attribute(node, own, called):
                    todo.append((node.value, own, False))
            elif isinstance(node, ast.Call):
                todo.append((node.func, own, True))
                todo += [(child, own, False) for child in (*node.args, *node.keywords)]
            else:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    self._own_name(node.name)
                    todo += [(d, own, True) for d in node.decorator_list]
                todo += self._inside(node, own)

    def _inside(self, node: ast.AST, own: frozenset) -> list:
        """The parts of a node, each with the names that are local where it is evaluated."""
        outer, inner = own, own
        if isinstance(node, _SCOPES):
            inner = own | _locals(node)
        elif isinstance(node, ast.ClassDef):  # its own names fall through to the module's
            inner = frozenset()
        parts: list = []
        for field, value in ast.iter_fields(node):
            if field == "decorator_list" or value is None:
                continue
            if field in ("annotation", "returns"):
                self._annotation(value)
                continue
            values = value if isinstance(value, list) else [value]
            if field == "args" and isinstance(value, ast.arguments):
                parts += [(d, outer, False) for d in (*value.defaults, *value.kw_defaults) if d]
                every = (*value.posonlyargs, *value.args, *value.kwonlyargs)
                for arg in (*every, *filter(None, (value.vararg, value.kwarg))):
                    if arg.annotation:
                        self._annotation(arg.annotation)
                continue
            if field == "generators":
                parts.append((value[0].iter, outer, False))
                parts += [(value[0].target, inner, False)]
                parts += [(test, inner, False) for test in value[0].ifs]
                values = value[1:]
            place = outer if field in ("bases", "keywords") else inner
            parts += [(v, place, False) for v in values if isinstance(v, ast.AST)]
        return parts

    def _annotation(self, node: ast.AST) -> None:
        """Names and subscripts of the library's types, which nobody can read again."""
        for part in ast.walk(node):
            if not isinstance(part, _ANNOTATION):
                raise _Refused
            if isinstance(part, ast.Subscript):
                base = part.value
                if not (
                    isinstance(base, ast.Name)
                    and base.id in self._names
                    and base.id not in self._stored
                ):
                    raise _Refused
                inside = {n.id for n in ast.walk(part.slice) if isinstance(n, ast.Name)}
                if inside & self._stored - self._classes:
                    raise _Refused

    def _own_name(self, name: str) -> None:
        if name.startswith("__") and name.endswith("__") and name not in OWN_DUNDERS:
            raise _Refused

    def _name(self, node: ast.Name, own: frozenset, called: bool) -> None:
        self._own_name(node.id)
        if not isinstance(node.ctx, ast.Load) or node.id in own or node.id not in self._names:
            return
        if node.id == "__name__":
            return
        thing = self._names[node.id]
        if thing is sys.stdin or thing is sys.stdout:
            return
        if not self._harmless(node.id, thing, called):
            raise _Refused

    def _attribute(self, node: ast.Attribute, own: frozenset, called: bool) -> bool:
        """Check `node`; True when what is before the dot needs no check."""
        base = node.value
        if isinstance(base, ast.Name) and base.id not in own:
            thing = self._names.get(base.id)
            if isinstance(thing, types.ModuleType):
                if not isinstance(node.ctx, ast.Load):
                    raise _Refused
                self._member(thing.__name__, node.attr, called)
                return True
        self._own_name(node.attr)
        mine = isinstance(base, ast.Name) and base.id in ("self", "cls")
        if node.attr.startswith("_") and not node.attr.startswith("__") and not mine:
            raise _Refused
        if _FRAMES.match(node.attr) or node.attr in _STREAM:
            raise _Refused
        return False

    def _member(self, module: str, name: str, called: bool) -> None:
        if module in _ONLY:
            if name not in _ONLY[module]:
                raise _Refused
            return
        if module not in self._modules or not hasattr(self._modules[module], name):
            raise _Refused
        if not self._harmless(name, getattr(self._modules[module], name), called):
            raise _Refused

    def _harmless(self, name: str, thing: object, called: bool) -> bool:
        if id(thing) in self._callable:
            return called
        if name in _NEVER:
            return False
        if isinstance(thing, tuple):
            return all(isinstance(item, _IMMUTABLE) for item in thing)
        if id(thing) in self._of_sys:
            return False
        if isinstance(thing, type):
            return bool(thing.__flags__ & 1 << 8) and thing is not type
        return isinstance(thing, (*_IMMUTABLE, types.BuiltinFunctionType))


def _locals(scope: ast.AST) -> frozenset:
    """Names that are local to a function or comprehension whatever runs first in it."""
    if not isinstance(scope, (ast.FunctionDef, ast.Lambda)):
        targets = [g.target for g in scope.generators]
        return frozenset(
            n.id
            for t in targets
            for n in ast.walk(t)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        )
    a = scope.args
    given = (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))
    found = {arg.arg for arg in given}
    outer: set = set()
    todo = list(scope.body) if isinstance(scope, ast.FunctionDef) else []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            outer |= set(node.names)
        if not isinstance(node, (*_SCOPES, ast.ClassDef)):
            todo += ast.iter_child_nodes(node)
    return frozenset(found - outer)
