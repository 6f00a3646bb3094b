"""The comparison rules on hand-worked pairs, and their algebra on generated ones."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.execution.compare import functional_equal, load_json, stdout_equal

EQUAL_STDOUT = [
    ("4\n", "4"),
    ("\n\n 4 \n\n", "4\n"),
    ("", " \n\t\n"),
    ("a\r\nb\r\n", "a\nb\n"),
    ("3", "3.0"),
    ("+3", "3e0"),
    ("007", "7"),
    ("1_000", "1000"),
    ("３", "3"),  # noqa: RUF001
    ("1  2\t3", "1 2 3"),
    ("-0", "0"),
    ("inf", "Infinity"),
    ("1e400", "10e399"),
    ("NaN", "NaN"),
    ("YES\n1 2", "YES \n 1  2"),
    ("\u00a0x\u00a0", "x"),
]
UNEQUAL_STDOUT = [
    ("4", "5"),
    ("", "0"),
    ("1\n\n2", "1\n2"),
    ("1 2", "1\n2"),
    ("1 2 2", "1 2"),
    ("Yes", "YES"),
    ("a  b", "a b"),
    ("Case 1: 3.0", "Case 1: 3"),
    ("0.3333333333", "0.3333333333333333"),
    ("0.1", "0.10000000001"),
    ("1e400", "1e401"),
    ("nan", "NaN"),
    ("nan 1", "nan  1"),
    ("sNaN", "nan"),
    ("1e99999999999999999999", "0e99999999999999999999"),
    ("0x10", "16"),
    ("1,5", "1.5"),
    ("a\x0bb", "a\nb"),
]


@pytest.mark.parametrize(("actual", "expected"), EQUAL_STDOUT)
def test_stdout_that_agrees(actual, expected):
    assert stdout_equal(actual, expected)
    assert stdout_equal(expected, actual)


@pytest.mark.parametrize(("actual", "expected"), UNEQUAL_STDOUT)
def test_stdout_that_differs(actual, expected):
    assert not stdout_equal(actual, expected)
    assert not stdout_equal(expected, actual)


@settings(deadline=None)
@given(st.text())
def test_any_text_equals_itself_with_blank_space_around_it(text):
    assert stdout_equal(text, text)
    assert stdout_equal(f" \n{text}\n\t\n", text)


@settings(deadline=None)
@given(st.lists(st.integers(), min_size=1))
def test_integers_may_be_printed_as_floats_but_not_off_by_one(numbers):
    plain = " ".join(map(str, numbers))
    assert stdout_equal("  ".join(f"{n}.0" for n in numbers), plain)
    assert not stdout_equal(" ".join(map(str, [numbers[0] + 1, *numbers[1:]])), plain)
    assert not stdout_equal(f"{plain} 0", plain)


@settings(deadline=None)
@given(st.lists(st.text("abcXYZ", min_size=1), min_size=2, unique=True))
def test_words_may_not_be_reordered(words):
    assert not stdout_equal("\n".join(words[::-1]), "\n".join(words))


@pytest.mark.parametrize(
    ("actual", "expected", "equal"),
    [
        ("true", "1", True),
        ("2", "2.0", True),
        ('"4"', "4", False),
        ('"Yes"', '"YES"', False),
        ('"ab "', '"ab"', False),
        ("[1, [2]]", "[1,[2]]", True),
        ("[2, 1]", "[1, 2]", False),
        ("null", "0", False),
        ("null", "null", True),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', True),
        ("0.8999999999999999", "0.9", False),
        ("NaN", "NaN", False),
        ("[NaN]", "[NaN]", False),
        ("Infinity", "Infinity", True),
        ("1" + "0" * 9000, "1" + "0" * 8999 + "1", False),
        ("-1" + "0" * 9000, "-1" + "0" * 9000, True),
    ],
)
def test_values(actual, expected, equal):
    assert functional_equal(load_json(actual), load_json(expected)) is equal


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**12), st.integers(4000, 9000), st.booleans())
def test_long_integers_keep_their_value(low, digits, negative):
    sign = -1 if negative else 1
    text = "-" * negative + "7" + str(low).zfill(digits)
    assert load_json(text) == sign * (7 * 10**digits + low)


@pytest.mark.parametrize("text", ["", "abc", "[1", "1 2", "'a'", "[" * 100_000 + "]" * 100_000])
def test_what_is_not_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        load_json(text)


def test_infinite_floats_are_read():
    assert math.isinf(load_json("1e999"))
