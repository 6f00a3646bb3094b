"""Programs that can carry nothing over from one run to the next, by their text alone.

Such a program may run on all inputs of a problem in one process, with fresh streams and a fresh
namespace each time: it keeps to names of its own, to modules without state and to the standard
streams, so that it cannot tell this from a process for each. The text is searched, not parsed: a
parser is too much to expose to hostile input in this process, and a word too many in a comment only
costs the program a fork a test.
"""

import re

# Modules whose functions leave nothing behind; random is seeded anew for every run.
MODULES = {
    *("abc", "array", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime"),
    *("enum", "fractions", "functools", "heapq", "itertools", "math", "numbers", "operator"),
    *("random", "re", "statistics", "string", "typing"),
}
# What may be used of these: streams are new for each run, the recursion limit is set anew.
_SYS = "stdin|stdout|stderr|setrecursionlimit|maxsize|exit|version_info"
_IO = "BytesIO|StringIO"
# Names that reach past a program's own: builtins, and what the prelude brings in from sys and io.
FORBIDDEN = {
    *("async", "breakpoint", "compile", "delattr", "eval", "exec", "getattr", "globals", "help"),
    *("json", "locals", "methodcaller", "attrgetter", "open", "setattr", "vars", "builtins"),
    *("addaudithook", "argv", "displayhook", "excepthook", "meta_path", "modules", "path"),
    *("path_hooks", "path_importer_cache", "setprofile", "settrace", "warnoptions"),
    *("set_int_max_str_digits", "setswitchinterval", "set_asyncgen_hooks", "flags", "FileIO"),
    *("open_code", "TextIOWrapper", "BufferedReader", "BufferedWriter", "detach", "close"),
}
OWN_DUNDERS = {
    *("__name__", "__main__", "__init__", "__slots__", "__repr__", "__str__", "__call__"),
    *("__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__", "__hash__", "__bool__"),
    *("__len__", "__iter__", "__next__", "__getitem__", "__setitem__", "__contains__"),
    *("__add__", "__sub__", "__mul__", "__neg__", "__iadd__", "__radd__", "__rmul__"),
    *("__truediv__", "__floordiv__", "__mod__", "__pow__"),
}

_WORD = re.compile(r"[^\W\d]\w*")
_NAMES = r"\w+(?:[ \t]+as[ \t]+\w+)?"
_IMPORT = re.compile(
    r"(?:^|[;:])[ \t]*(?:"
    rf"import[ \t]+(?P<plain>{_NAMES}(?:[ \t]*,[ \t]*{_NAMES})*)"
    r"|from[ \t]+(?P<module>\w+)[ \t]+import[ \t]+"
    rf"(?P<parts>\*|{_NAMES}(?:[ \t]*,[ \t]*{_NAMES})*|\([\w\s,]*\))"
    r")[ \t]*(?=[;#\r\n]|$)",
    re.MULTILINE,
)


def carries_nothing_over(code: str) -> bool:
    """Tell whether a program is seen to keep nothing beyond its own namespace."""
    words = _WORD.findall(code)
    seen = set(words)
    if not all(map(str.isascii, seen)) or seen & FORBIDDEN:  # other scripts have forms of letters
        return False
    if any(w.startswith("__") and w.endswith("__") for w in seen - OWN_DUNDERS):
        return False
    shared = MODULES | {"sys", "io"}
    found = 0
    for statement in _IMPORT.finditer(code):
        found += 1
        names = _imported(statement)
        if names is None:
            return False
        shared |= names
    if found != words.count("import"):
        return False
    rest = _IMPORT.sub("\n", code)
    if re.search(rf"\bsys\b(?![ \t]*\.[ \t]*(?:{_SYS})\b)", rest):
        return False
    if re.search(rf"\bio\b(?![ \t]*\.[ \t]*(?:{_IO})\b)", rest):
        return False
    return not _stores_to(shared & seen, rest)


def _imported(statement: re.Match[str]) -> set[str] | None:
    """The names that a statement binds, None if it takes more than it may."""
    if statement["plain"]:
        pairs = [name.split() for name in statement["plain"].split(",")]
        known = all(p[0] in MODULES or (p[0] in ("sys", "io") and len(p) == 1) for p in pairs)
        return {p[-1] for p in pairs} if known else None
    parts = statement["parts"].strip("()").replace("\n", " ")
    pairs = [name.split() for name in parts.split(",") if name.strip()]
    allowed = {"sys": _SYS, "io": _IO}.get(statement["module"])
    known = statement["module"] in MODULES
    if allowed is not None:
        known = all(p[0] in allowed.split("|") for p in pairs)
    return {p[-1] for p in pairs} if known else None


def _stores_to(names: set[str], code: str) -> bool:
    """Tell whether an attribute or an item of one of these may be assigned or deleted."""
    each = "|".join(sorted(names)) or "(?!)"
    target = rf"\b(?:{each})\b(?:[ \t]*\.[ \t]*\w+)+[ \t]*(?:\[[^\]]*\][ \t]*)?"
    return bool(
        re.search(rf"{target}(?:[-+*/%&|^@]|//|\*\*|<<|>>)?=(?!=)", code)
        or re.search(rf"\b(?:del|as|for)[ \t(]+{target}", code)
    )
