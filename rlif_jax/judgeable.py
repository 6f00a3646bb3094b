"""Whether the tests of a problem can be judged at all, found without running anything."""

import ast
import contextlib
import json
import re
import sys
import warnings
from collections.abc import Iterator

from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem

KINDS = ("stdin", "functional", "assert")
INTEGER_DIGITS = 50_000
"""Longest integer that a source may spell out, as where tests run; a new interpreter's is 4,300."""


def check_judgeable(problem: Problem, where: str, parse: bool = True) -> None:
    """Refuse a problem without tests, and tests that no program could pass or that none could fail.

    Without `parse` the Python of tests that assert is only searched for the function's name: sets
    were parsed when they were built.

    Raises UserError, which begins with `where`, when there is no test, when tests are of several
    kinds or of an unknown one, when there is no entry point for tests that call a function, when a
    functional test is not JSON, or when an assert test is not Python, never uses the entry point or
    cannot fail.
    """
    if flaw := _flaw(problem) or next(_flaws_of_tests(problem, parse), ""):
        raise UserError(f"{where}: {flaw}.")


def _flaw(problem: Problem) -> str:
    """Why no test of the problem can be judged, and the remedy; "" when they may be."""
    if not problem.tests:
        return "it has no tests; add at least one or remove the row"
    kinds = sorted({test.kind for test in problem.tests})
    if len(kinds) > 1:
        return f"its tests are of several kinds, {' and '.join(kinds)}; keep those of one"
    if kinds[0] not in KINDS:
        return f"its tests are of kind {kinds[0]!r}; write tests of kind {', '.join(KINDS)}"
    if kinds != ["stdin"] and not problem.entry_point:
        return "its tests call a function, and no entry_point names it; name it in entry_point"
    return ""


def _flaws_of_tests(problem: Problem, parse: bool) -> Iterator[str]:
    """Why single tests cannot be judged, each with its remedy."""
    name = problem.entry_point or ""
    for number, test in enumerate(problem.tests, start=1):
        if test.kind == "functional":
            for text in (*filter(str.strip, test.input.split("\n")), *test.outputs):
                if why := json_error(text):
                    yield (
                        f"test {number} of the function {name!r} has {shown(text)}, which is not "
                        f"JSON ({why}); arguments are one JSON value per line, a result is one "
                        "JSON value"
                    )
        elif test.kind == "assert" and (flaw := _flaw_of_source(test.input, name, parse)):
            yield f"test {number} {flaw}"


def json_error(text: str) -> str:
    """Why a text is not a JSON value; "" when it is one."""
    try:
        # Numbers stay text: only their form matters, and int() refuses very long ones.
        json.loads(text, parse_int=str)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def _flaw_of_source(source: str, name: str, parse: bool) -> str:
    """Why the source of an assert test cannot be judged; "" when it may be."""
    if not name.isidentifier():
        return f"calls {name!r}, which is not the name of a function; correct entry_point"
    never = (
        f"never calls {name!r}: {shown(source)}; correct the test, or name in entry_point the "
        "function that it calls"
    )
    if not parse:
        return "" if re.search(rf"\b{name}\b", source) else never
    try:
        tree = parsed(source)
    except ValueError as error:
        return f"is not Python: {error}, in {shown(source)}; write statements that assert"
    if not any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree)):
        return never
    if idle := _idle(tree):
        return (
            f"passes every program, for {idle}: {shown(source)}; write what is expected as "
            "assert, outside of functions or in one that the test calls"
        )
    return ""


def _idle(tree: ast.Module) -> str:
    """Why the source of a test checks nothing; "" when it may."""
    if any(map(_checks, _reached(tree))):
        return ""
    if any(map(_checks, ast.walk(tree))):
        return "nothing calls the function that asserts"
    return "it asserts nothing"


def _checks(node: ast.AST) -> bool:
    """Whether it is `assert`, `raise`, or a call of what is named so, as unittest's assertEqual."""
    if isinstance(node, ast.Call):
        return _name(node.func).startswith("assert")
    return isinstance(node, ast.Assert | ast.Raise)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _reached(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes outside of functions, and those of functions that a node reached mentions.

    Decorated functions and special methods may be called without that, and always count.
    """
    waiting: list[ast.AST] = [tree]
    functions: dict[str, list[ast.AST]] = {}
    mentioned = set()
    while waiting:
        node = waiting.pop()
        yield node
        mentioned.add(_name(node))
        waiting += functions.pop(_name(node), ())
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                and not child.decorator_list
                and not child.name.startswith("__")
                and child.name not in mentioned
            ):
                functions.setdefault(child.name, []).append(child)
            else:
                waiting.append(child)


def parsed(source: str) -> ast.Module:
    """The syntax tree of a Python text, which is compiled and never run.

    Raises ValueError, which names the error and its line, for a text that is not Python.
    """
    try:
        with warnings.catch_warnings(), long_integers():
            warnings.simplefilter("ignore")  # of a row's code, they would go to standard error
            tree = ast.parse(source)
            compile(tree, "<test>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ValueError(f"{error.msg}, line {error.lineno}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("it is nested too deeply") from error
    return tree


@contextlib.contextmanager
def long_integers() -> Iterator[None]:
    """Let integers have `INTEGER_DIGITS` in texts, as where tests run."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(INTEGER_DIGITS)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)
