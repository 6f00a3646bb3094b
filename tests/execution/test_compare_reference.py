"""The comparison against a slow, obvious reference of the written rules, on generated answers.

The reference uses other means than the product: a grammar of decimal numbers, exact fractions, and
Python's own `==` on what `json` reads. Answers are drawn from few values with many spellings, so
that two of them are often equal and written differently.
"""

import json
import re
import unicodedata
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_jax.execution.compare import answer_key, functional_equal, load_json, stdout_equal


def reference_number(token: str) -> Fraction | str | None:
    """The number that a token is: a fraction, "inf", "-inf" or "nan"; None for no number."""
    plain = ""
    for character in token.replace("_", ""):
        if not character.isascii():
            value = unicodedata.decimal(character, None)
            if value is None:
                return None
            character = str(value)
        plain += character.lower()
    if found := re.fullmatch(r"([+-]?)inf(inity)?", plain):
        return "-inf" if found[1] == "-" else "inf"
    if re.fullmatch(r"[+-]?s?nan[0-9]*", plain):
        return "nan"
    found = re.fullmatch(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:e([+-]?[0-9]+))?", plain)
    if not found or not (found[2] or found[3]):
        return None
    whole, part = found[2], found[3] or ""
    value = Fraction(int(whole + part), 10 ** len(part)) * Fraction(10) ** int(found[4] or 0)
    return -value if found[1] == "-" else value


def reference_close(actual: str, expected: str, tolerance: Fraction) -> bool:
    """Whether two words agree when numbers may differ, but not one integer from another."""
    if actual == expected:
        return True
    a, e = reference_number(actual), reference_number(expected)
    if a in (None, "nan") or e in (None, "nan"):
        return False
    if not (isinstance(a, Fraction) and isinstance(e, Fraction)):
        return a == e
    whole = not re.search("[.eE]", actual + expected)
    return abs(a - e) <= (0 if whole else tolerance * max(1, abs(e)))


def reference_stdout(actual: str, expected: str, tolerance: str = "0") -> bool:
    """The rules of standard output, one after the other."""

    def words(text: str) -> list[str]:
        return "".join(" " if c.isspace() else c for c in text).split(" ")

    def trimmed(text: str) -> str:
        while text and text[0].isspace():
            text = text[1:]
        while text and text[-1].isspace():
            text = text[:-1]
        return text

    def lines(text: str) -> list[str]:
        return [trimmed(line) for line in re.split("\n", trimmed(text))]

    if len(lines(actual)) != len(lines(expected)):
        return False
    for a_line, e_line in zip(lines(actual), lines(expected), strict=True):
        if a_line == e_line:
            continue
        a_words, e_words = ([w for w in words(line) if w] for line in (a_line, e_line))
        if len(a_words) != len(e_words):
            return False
        pairs = list(zip(a_words, e_words, strict=True))
        a_numbers, e_numbers = (list(map(reference_number, side)) for side in (a_words, e_words))
        if tolerance != "0":
            if not all(reference_close(a, e, Fraction(tolerance)) for a, e in pairs):
                return False
        elif None in a_numbers or a_numbers != e_numbers or "nan" in a_numbers:
            return False
    return True


WORDS = ["a", "A", "1x", "1,5", "0x1", "--1", ".", "e5", "_", "", "\udc80", "²"]
SPECIAL = ["inf", "Infinity", "+INF", "-inf", "in_f", "nan", "NaN", "-nan1", "sNaN"]
BLANKS = [" ", "  ", "\t", "\u00a0", "\r", "\x0b", "\x0c", "\u2003", "\x85"]
FULL_WIDTH, ARABIC = (
    {ord("0") + i: chr(first + i) for i in range(10)} for first in (0xFF10, 0x0660)
)


@st.composite
def spelling(draw, value: Fraction) -> str:
    """One way to write a multiple of 1/1000."""
    shift = draw(st.integers(-4, 4))
    scaled = abs(value) / Fraction(10) ** shift
    text = f"{int(scaled * 10**9):010d}"
    text = f"{text[:-9]}.{text[-9:]}".rstrip("0") + draw(st.sampled_from(["", "0", "00"]))
    if text.endswith(".") and draw(st.booleans()):
        text = text[:-1]
    if draw(st.integers(0, 3)) == 0:
        text = "0" + text[:1] + "_" + text[1:]
    if shift or draw(st.integers(0, 3)) == 0:
        text += draw(st.sampled_from("eE")) + draw(
            st.sampled_from(["", "+"] * (shift >= 0) or [""])
        )
        text += str(shift)
    if draw(st.integers(0, 5)) == 0:
        text = text.translate(draw(st.sampled_from([FULL_WIDTH, ARABIC])))
    plus = draw(st.sampled_from(["", "", "+"]))
    return f"-{text}" if value < 0 or (value == 0 and draw(st.booleans())) else plus + text


NUMBERS = st.builds(
    Fraction, st.sampled_from([0, 1, 10, 999, 1000, 1001, 12300, -1000]), st.just(1000)
)
DOCUMENTS = st.lists(
    st.lists(st.one_of(NUMBERS, NUMBERS, st.sampled_from(WORDS + SPECIAL)), max_size=3), max_size=4
)


@st.composite
def printed(draw, document: list[list[Fraction | str]]) -> str:
    """One way to print the lines of a document."""
    text = draw(st.sampled_from(["", "\n", " \r\n"]))
    for line in document:
        for item in line:
            text += draw(spelling(item)) if isinstance(item, Fraction) else item
            text += draw(st.sampled_from(BLANKS)) if draw(st.booleans()) else " "
        text += draw(st.sampled_from(["\n", "\n", "\r\n", " \n"]))
    return text


PRINTED_TWICE = st.one_of(
    DOCUMENTS.flatmap(lambda d: st.tuples(printed(d), printed(d))),
    st.tuples(DOCUMENTS.flatmap(printed), DOCUMENTS.flatmap(printed)),
    st.tuples(st.text("01_.eE+-\n infa٣"), st.text("01_.eE+-\n infa٣")),
)


@settings(deadline=None, max_examples=500)
@given(PRINTED_TWICE)
def test_standard_output_agrees_as_the_written_rules_say_and_so_do_keys(pair):
    want = reference_stdout(*pair)
    assert stdout_equal(*pair) is want
    assert (answer_key("stdin", pair[0]) == answer_key("stdin", pair[1])) is want


@settings(deadline=None, max_examples=300)
@given(PRINTED_TWICE, st.sampled_from(["0.001", "1e-06", "0.5", "20.0"]))
def test_tolerance_is_that_of_exact_fractions(pair, tolerance):
    assert stdout_equal(*pair, float(tolerance)) is reference_stdout(*pair, tolerance)


SPELLINGS = (  # of equal values on each line
    ["0", "0.0", "-0.0", "-0", "false", "0e5"],
    ["1", "1.0", "1e0", "true", "10e-1"],
    ["1e22", "10000000000000000000000", "1.0E+22"],
    ["0.1", "0.10", "1e-1", "0.1000000000000000055"],
    ["0.30000000000000004"],
    ["0.3"],
    ["9007199254740993"],
    ["9007199254740992", "9007199254740992.0"],
    ["1e400", "Infinity"],
    ["-Infinity", "-1e999"],
    ["NaN"],
    ["null"],
    ['""', ' "" '],
    ['"1"', r'"\u0031"'],
    ['"NaN"'],
    [r'"\ud800"'],
    ["[]", "[ ]"],
    ["{}"],
)
VALUES = st.recursive(
    st.sampled_from(SPELLINGS),
    lambda inside: st.one_of(
        st.tuples(st.just("list"), st.lists(inside, max_size=3)),
        st.tuples(st.just("dict"), st.dictionaries(st.sampled_from("abc"), inside, max_size=3)),
    ),
    max_leaves=6,
)


@st.composite
def json_text(draw, value: list[str] | tuple) -> str:
    """One way to write a value as JSON."""
    if isinstance(value, list):
        return draw(st.sampled_from(value))
    kind, inside = value
    if kind == "list":
        return f"[{', '.join(draw(json_text(v)) for v in inside)}]"
    names = draw(st.permutations(sorted(inside)))
    return "{" + ",".join(f'"{name}": {draw(json_text(inside[name]))}' for name in names) + "}"


WRITTEN_TWICE = st.one_of(
    VALUES.flatmap(lambda v: st.tuples(json_text(v), json_text(v))),
    st.tuples(VALUES.flatmap(json_text), VALUES.flatmap(json_text)),
)


@settings(deadline=None, max_examples=500)
@given(WRITTEN_TWICE)
def test_values_agree_as_python_says_and_so_do_keys(pair):
    # json gives each NaN that it reads the same identity, and `==` on containers looks at that
    fresh = [json.loads(text, parse_constant=float) for text in pair]
    assert functional_equal(*map(load_json, pair)) is (fresh[0] == fresh[1])
    nan_named = [json.loads(text, parse_constant=named_nan) for text in pair]
    keys = [answer_key("functional", text) for text in pair]
    assert (keys[0] == keys[1]) is (nan_named[0] == nan_named[1])


def named_nan(name: str) -> float | tuple[str]:
    """A value that equals itself in place of NaN."""
    return (name,) if name == "NaN" else float(name)


NEAR = [Fraction(n, 1000) for n in (0, 1, 999, 1000, 1001, 1500, 2000, -1000)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from(NEAR)] * 2), max_size=3), st.sampled_from(["0.001", "0.5"])
)
def test_tolerance_inside_values_is_that_of_exact_fractions(pairs, tolerance):
    want = all(abs(a - e) <= Fraction(tolerance) * max(1, abs(e)) for a, e in pairs)
    for kind in (float, lambda n: int(n) if n.denominator == 1 else float(n)):
        actual, expected = ({"x": [["a", kind(pair[side])] for pair in pairs]} for side in (0, 1))
        whole = [p for p in pairs if p[0].denominator == p[1].denominator == 1]
        off = kind is not float and any(a != e for a, e in whole)
        assert functional_equal(actual, expected, float(tolerance)) is (want and not off)
