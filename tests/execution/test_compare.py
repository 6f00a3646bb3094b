"""The comparison rules on hand-worked and hostile pairs, and their algebra on generated ones."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.execution.compare import answer_key, functional_equal, load_json, stdout_equal

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
    ("inf", "-inf"),
    ("a\x0bb", "a\nb"),
]


@pytest.mark.parametrize(("actual", "expected"), EQUAL_STDOUT)
def test_stdout_that_agrees(actual, expected):
    assert stdout_equal(actual, expected)
    assert stdout_equal(expected, actual)
    assert answer_key("stdin", actual) == answer_key("stdin", expected)


@pytest.mark.parametrize(("actual", "expected"), UNEQUAL_STDOUT)
def test_stdout_that_differs(actual, expected):
    assert not stdout_equal(actual, expected)
    assert not stdout_equal(expected, actual)
    assert answer_key("stdin", actual) != answer_key("stdin", expected)


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
        ('{"a": 1}', '{"a": 1, "b": 1}', False),
        ('{"a": "b", "c": "d"}', '{"a": "d", "c": "b"}', False),
        ('["a"]', '"a"', False),
        ('["ab", "c"]', '["a", "bc"]', False),
        ('["a;text b", "c"]', '["a", "b;text c"]', False),
        ("[[1], 1]", "[[1, 1]]", False),
        ("[[], [1]]", "[[1], []]", False),
        ("[]", "{}", False),
        ("-0.0", "0", True),
        ("9007199254740993", "9007199254740992.0", False),
        ("1e22", "10000000000000000000000", True),
        ("1e23", "100000000000000000000000", False),
        ("Infinity", "-Infinity", False),
        ('"\\ud800"', '"\\ud801"', False),
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
    if "NaN" not in actual:
        assert (answer_key("functional", actual) == answer_key("functional", expected)) is equal


def test_nan_equals_nothing_but_is_the_same_answer():
    value = load_json("[NaN, NaN]")
    assert not functional_equal(value, value)
    assert answer_key("functional", "[NaN]") == answer_key("functional", " [NaN] ")
    assert answer_key("functional", "NaN") != answer_key("functional", '"NaN"')


def test_keys_are_32_hexadecimal_digits_and_need_a_known_kind():
    assert re.fullmatch("[0-9a-f]{32}", answer_key("stdin", "4"))
    with pytest.raises(ValueError, match="'stdout' is neither"):
        answer_key("stdout", "4")
    with pytest.raises(ValueError):
        answer_key("functional", "[1")


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


TOLERANCE = [
    ("1.000001", "1", 1e-6, True),
    ("1.0000011", "1", 1e-6, False),
    ("0.0000005", "0", 1e-6, True),  # absolute below 1
    ("1000000.0", "1000001", 1e-6, True),  # relative above
    ("1000000", "1000001.1", 1e-6, False),
    ("-1000000", "-1000001.0", 1e-6, True),
    ("1000000", "1000001", 1e-6, False),  # two integers
    ("+1_000", "1000", 1e-6, True),
    ("1e9", "1000000001", 1e-6, True),
    ("1", "-1", 1e-6, False),
    ("1 2 3.0000001", "1 2 3", 1e-6, True),
    ("1 2.1 3.0000001", "1 2 3", 1e-6, False),
    ("1 2", "1 2 3", 1e9, False),
    ("x 1.0000001", "x 1", 1e-6, True),
    ("Case #1: 0.333333333", "Case #1: 0.333333", 1e-6, True),
    ("Case #2: 0.333333333", "Case #1: 0.333333", 1e-6, False),
    ("Case #1: 0.333343", "Case #1: 0.333333", 1e-6, False),
    ("YES 0.25 NO 2.0000001", "YES 0.25 NO 2", 1e-6, True),
    ("YES 0.25 no 2.0000001", "YES 0.25 NO 2", 1e-6, False),
    ("0.3333333 YES", "YES 0.3333333", 1e-6, False),
    ("x  1.0000001", "x 1", 1e-6, True),
    ("x\n1.0000001", "x 1", 1e-6, False),
    ("x 5 1.0000001", "x 6 1.0", 1e-6, False),
    ("[0.5000001, 1]", "[0.5, 1]", 1e-6, False),  # no token is a number
    ("x=0.5000001", "x=0.5", 1e-6, False),
    ("inf 1.0000001", "inf 1", 1e-6, True),
    ("nan 1.0000001", "nan 1", 1e-6, True),  # the same text
    ("nan 1.0000001", "NaN 1", 1e-6, False),
    ("sNaN 1.0", "x 1.0", 1e-6, False),
    ("inf x", "1e308 x", 1e300, False),
    ("inf 1.0", "Infinity 1", 1e-6, True),
    ("inf", "1", 1e-6, False),
    ("nan", "NaN", 1e9, False),
    ("1\n2.0000001", "1\n2", 1e-6, True),
    ("1.5\nx", "1\ny", 1.0, False),
]


@pytest.mark.parametrize(("actual", "expected", "tolerance", "equal"), TOLERANCE)
def test_tolerance_token_by_token(actual, expected, tolerance, equal):
    assert stdout_equal(actual, expected, tolerance) is equal


@pytest.mark.parametrize(
    ("actual", "expected", "tolerance", "equal"),
    [
        ("0.8999999999999999", "0.9", 1e-6, True),
        ("0.333333333", "0.333333", 1e-6, True),
        ('["a", 0.333333333]', '["a", 0.333333]', 1e-6, True),
        ('["b", 0.333333333]', '["a", 0.333333]', 1e-6, False),
        ('[["a", [0.5]], 2.0000001]', '[["a", [0.5]], 2]', 1e-6, True),
        ('"0.333333333"', '"0.333333"', 1e-6, False),
        ("1000000007", "1000000008", 1e-6, False),
        ("1000000007.0", "1000000008", 1e-6, True),
        ("1.1", "1", 0.1, True),
        ("1.11", "1", 0.1, False),
        ('{"a": [1, {"b": 2.0000001}]}', '{"a": [1, {"b": 2}]}', 1e-6, True),
        ('{"a": [1, {"b": 2.1}]}', '{"a": [1, {"b": 2}]}', 1e-6, False),
        ("[1, 2]", "[1]", 1e9, False),
        ("true", "1", 1e-6, True),
        ("true", "0.9999999", 1e-6, False),
        ("1", "false", 5.0, False),
        ('"1"', "1", 5.0, False),
        ("null", "0", 5.0, False),
        ("Infinity", "1e308", 1e300, False),
        ("Infinity", "Infinity", 1e-6, True),
        ("NaN", "NaN", 1e9, False),
        ("1" + "0" * 9000, "1" + "0" * 8999 + "1", 1e-6, False),
        ("1" + "0" * 9000, "1" + "0" * 9001, 1e-6, False),
        ("1" + "0" * 300 + "1", "1e301", 1e-6, True),
    ],
)
def test_tolerance_on_values(actual, expected, tolerance, equal):
    assert functional_equal(load_json(actual), load_json(expected), tolerance) is equal


DIGITS = "7" * 1_000_000
TOKENS = "1 " * 300_000


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
@pytest.mark.parametrize(
    ("actual", "expected", "equal"),
    [
        ("1e999999999", "1", False),
        ("1", "1e999999999", False),
        ("1e-999999999", "1", False),
        ("1e999999999", "10e999999998", True),
        ("-1e999999999999999999", "1e999999999999999999", False),
        ("1e1000000000000000000", "10e999999999999999999", False),  # too large for a Decimal
        (DIGITS, DIGITS + ".0", True),
        (DIGITS + "e999999999", DIGITS, False),
        (f"0.{DIGITS}", f".{DIGITS}0", True),
        (TOKENS, TOKENS.replace("1", "1.0"), True),
        (TOKENS, TOKENS + "1", False),
        (TOKENS.replace(" ", "\n"), TOKENS.replace("1 ", "1.0\n"), True),
        ("_" * 1_000_000 + "1", "1", True),
        ("[" * 1_000_000, "[", False),
        ("\udcff", "255", False),
    ],
)
def test_hostile_standard_output_is_compared_without_blowing_up(actual, expected, equal, tolerance):
    assert stdout_equal(actual, expected, tolerance) is equal
    assert (answer_key("stdin", actual) == answer_key("stdin", expected)) is equal


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
@pytest.mark.parametrize(
    ("actual", "expected", "equal"),
    [
        ("1e999999999", "Infinity", True),
        (DIGITS, DIGITS, True),
        (DIGITS, f"-{DIGITS}", False),
        (DIGITS, "1.5", False),
        (DIGITS, "Infinity", False),
        (f"0.{'0' * 1_000_000}1", "0", True),
        ("[" * 400 + "]" * 400, "[" * 400 + "]" * 400, True),
        ("[" * 400 + "]" * 400, "[" * 399 + "]" * 399, False),
        ('{"a":' * 400 + "1" + "}" * 400, '{"a":' * 400 + "1.0" + "}" * 400, True),
        (f"[{'[],' * 300_000}1]", f"[{'[],' * 300_000}1.0]", True),
        (f"[{'[],' * 300_000}1]", f"[{'[],' * 300_000}2]", False),
    ],
)
def test_hostile_values_are_compared_without_blowing_up(actual, expected, equal, tolerance):
    assert functional_equal(load_json(actual), load_json(expected), tolerance) is equal
    assert (answer_key("functional", actual) == answer_key("functional", expected)) is equal
