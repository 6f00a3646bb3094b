"""Whether the tests of a problem can be judged at all, found without running anything."""

import ast
import contextlib
import json
import sys
import warnings
from collections.abc import Iterator

from rlif_jax.data.dates import contest_day
from rlif_jax.errors import UserError, shown
from rlif_jax.problem import Problem, Test

INTEGER_DIGITS = 50_000
"""Longest integer that a source may spell out, as where tests run; a new interpreter's is 4,300."""


def check_judgeable(problem: Problem, where: str) -> None:
    """Refuse what no program could pass, and a contest date that is none.

    Raises UserError, with `where`, when there is no test, when tests are of several kinds, when
    there is no entry point for tests that call a function, when a functional test is not JSON, when
    an assert test is no Python, never uses the entry point or cannot fail, or when the metadata's
    `contest_date` is no ISO 8601 date.
    """
    if not problem.tests:
        raise UserError(f"{where}: it has no tests; add at least one or remove the row.")
    kinds = sorted({test.kind for test in problem.tests})
    if len(kinds) > 1:
        raise UserError(
            f"{where}: its tests are of several kinds, {' and '.join(kinds)}; keep those of one."
        )
    if kinds != ["stdin"] and problem.entry_point is None:
        raise UserError(
            f"{where}: its tests call a function and none is named; name it in entry_point."
        )
    for number, test in enumerate(problem.tests, start=1):
        if test.kind == "functional":
            _check_json(test, f"{where}: test {number} of the function {problem.entry_point!r}")
        elif test.kind == "assert":
            _check_assert(test, problem.entry_point, f"{where}: test {number}")
    if (date := problem.metadata.get("contest_date")) is not None:
        try:
            contest_day(date)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def _check_json(test: Test, place: str) -> None:
    for text in (*filter(str.strip, test.input.split("\n")), *test.outputs):
        try:
            # Numbers stay text: only their form matters, and int() refuses very long ones.
            json.loads(text, parse_int=str)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{place} has {shown(text)}, which is not JSON ({error}); arguments are one JSON "
                "value per line, a result is one JSON value."
            ) from error


def _check_assert(test: Test, entry_point: str | None, place: str) -> None:
    try:
        tree = parsed(test.input)
    except ValueError as error:
        raise UserError(
            f"{place} is no Python: {error}, in {shown(test.input)}; write statements that assert."
        ) from error
    if not any(isinstance(n, ast.Name) and n.id == entry_point for n in ast.walk(tree)):
        raise UserError(
            f"{place} never calls {entry_point!r}: {shown(test.input)}; correct the test, or name "
            "in entry_point the function that it calls."
        )
    if idle := _idle(tree):
        raise UserError(
            f"{place} passes every program, for {idle}: {shown(test.input)}; write what is "
            "expected as assert, outside of functions or in one that the test calls."
        )


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
    """The syntax tree of a Python text, which is compiled and never run; ValueError if it is none.

    The message names the error and its line.
    """
    try:
        with warnings.catch_warnings(), _long_integers():
            warnings.simplefilter("ignore")  # of a row's code, they would go to standard error
            tree = ast.parse(source)
            compile(tree, "<test>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ValueError(f"{error.msg}, line {error.lineno}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("it is nested too deeply") from error
    return tree


@contextlib.contextmanager
def _long_integers() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(INTEGER_DIGITS)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)
