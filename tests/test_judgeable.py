"""What is refused because no program could fail its tests, and what is not."""

import pytest

from rlif_jax.errors import UserError
from rlif_jax.judgeable import check_judgeable
from rlif_jax.problem import Problem, Test


def asserting(source: str) -> Problem:
    return Problem("p", "", (Test(source, "", "assert"),), entry_point="half")


IDLE = {
    "an expression": ("half(4) == 2", "it asserts nothing"),
    "in a text": ("half(4)\n'assert half(4) == 2'", "it asserts nothing"),
    "never called": (
        "def check(f):\n    assert f(4) == 2\nhalf(4)",
        "nothing calls the function that asserts",
    ),
    "called by itself": (
        "def check(f):\n    assert half(4) == 2\n    check(f)",
        "nothing calls the function",
    ),
    "called by a function that nothing calls": (
        "def check(f):\n    assert f(4) == 2\ndef main():\n    check(half)",
        "nothing calls the function",
    ),
    "a method": (
        "class Case:\n    def test(self):\n        assert half(4) == 2\nCase()",
        "nothing calls the function",
    ),
}


@pytest.mark.parametrize("name", IDLE)
def test_tests_that_every_program_passes(name):
    source, words = IDLE[name]
    with pytest.raises(UserError, match=rf"^f line 3: test 1 passes every program, for {words}"):
        check_judgeable(asserting(source), "f line 3")


@pytest.mark.parametrize(
    "source",
    [
        "assert half(4) == 2",
        "for n in range(9):\n    assert half(2 * n) == n",
        "if half(4) != 2:\n    raise AssertionError",
        "def check(candidate):\n    assert candidate(4) == 2\n\ncheck(half)",
        "def main():\n    check(half)\ndef check(f):\n    assert f(4) == 2\nmain()",
        "def check(f):\n    assert f(4) == 2\nfor each in (check,):\n    each(half)",
        "class Case:\n    def test(self):\n        assert half(4) == 2\nCase().test()",
        "class Case:\n    def __init__(self):\n        assert half(4) == 2\nCase()",
        "def now(f):\n    return f()\n@now\ndef check():\n    assert half(4) == 2",
        "import unittest\nunittest.TestCase().assertEqual(half(4), 2)",
        f"assert half(2) == {'7' * 5000}",  # longer than a new interpreter reads
        "try:\n    half('x')\nexcept TypeError:\n    pass\nelse:\n    assert False",
    ],
)
def test_tests_that_a_program_may_fail(source):
    check_judgeable(asserting(source), "f line 3")
