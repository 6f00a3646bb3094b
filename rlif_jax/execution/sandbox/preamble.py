"""The part of a problem's starter code before the answer. Standard library only.

It runs before a program, which may rely on it. It is not part of the program, so nothing in it may
make a program fail.
"""

import re
import types

FILE = "preamble.py"
NOT_COMPILED = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
PARSE_ONLY = 0x400  # ast.PyCF_ONLY_AST, without the module
_TOP_LEVEL = re.compile(r"^[^\s#]", re.MULTILINE)


def run_preamble(text: str, namespace: dict) -> None:
    """Run the complete statements of `text`; one that raises is skipped and binds no name."""
    program = compile_preamble(text)
    if program is not None:
        exec(program, namespace)


def compile_preamble(text: str) -> types.CodeType | None:
    """Compile the complete statements of `text`, each so that it cannot raise; None without any.

    Starter code may end in the head of a function or in a decorator, which are cut off.
    """
    starts = [match.start() for match in _TOP_LEVEL.finditer(text)]
    while starts:
        try:
            tree = compile(text, FILE, "exec", PARSE_ONLY, dont_inherit=True)
            tree.body[:] = map(_guarded, tree.body)
            return compile(tree, FILE, "exec", dont_inherit=True)
        except NOT_COMPILED:
            text = text[: starts.pop()]
    return None


def _guarded(statement):
    """Return the statement inside a `try`, if that is allowed and it could raise."""
    kind = type(statement).__name__
    future = kind == "ImportFrom" and statement.module == "__future__"
    if future or (kind == "Expr" and type(statement.value).__name__ == "Constant"):
        return statement
    guard = compile("try: pass\nexcept BaseException: pass", FILE, "exec", PARSE_ONLY)
    guard.body[0].body = [statement]
    return guard.body[0]
