"""The two compact forms in which starter problems are written."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Function:
    """A problem whose answer is a function.

    `signature` is what follows `def`, with type hints; `text` continues "Write a Python function
    ... that". `inputs` holds one entry per test: the argument of a one-parameter function, else the
    tuple of arguments. `reference` and `wrong` are function bodies. `in_class` asks for a method of
    `class Solution`. The first `public` tests are public.
    """

    title: str
    signature: str
    text: str
    inputs: Sequence[Any]
    reference: str
    wrong: str
    in_class: bool = False
    public: int = 2

    @property
    def name(self) -> str:
        return self.signature.partition("(")[0]

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"(\w+):", self.signature)

    @property
    def starter_code(self) -> str:
        if self.in_class:
            method = self.signature.replace("(", "(self, ", 1)
            return f"class Solution:\n    def {method}:\n        "
        return f"def {self.signature}:\n    "

    def program(self, body: str) -> str:
        """The whole program with `body` in place."""
        skeleton = self.starter_code
        indent = skeleton[skeleton.rindex("\n") + 1 :]
        lines = textwrap.indent(textwrap.dedent(body).strip("\n"), indent)
        return skeleton.rstrip(" ") + lines + "\n"


@dataclass(frozen=True)
class Program:
    """A problem whose answer is a program from standard input to standard output.

    `text` is the whole question but its example. `inputs` holds one standard input per test,
    without the newline at its end. `reference` and `wrong` are programs. `begin`, when given, is
    the start of a program that the question offers.
    """

    title: str
    text: str
    inputs: Sequence[str]
    reference: str
    wrong: str
    begin: str = ""
    public: int = 2

    def program(self, body: str) -> str:
        """The whole program: `body` without the indentation it has in the source."""
        return textwrap.dedent(body).strip("\n") + "\n"
