"""Overlap of training and evaluation: by id, by the words of the statement and by 13-gram."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_jax.data.overlap import GRAM, Overlap, overlaps, words_of
from rlif_jax.problem import Problem

FORMAT = "The input is given from Standard Input in the following format, where each line has"


def statement(name: str, prompt: str, starter_code: str = "") -> Problem:
    return Problem(name, prompt, (), starter_code)


def story(number: int, length: int = 60) -> list[str]:
    """Words that no other number's story has."""
    return [f"w{number}x{i}" for i in range(length)]


def pairs(train: Sequence[Problem], held_out: Sequence[Problem]) -> list[tuple[str, str, str]]:
    return [(o.train_id, o.held_out_id, o.how) for o in overlaps(train, held_out)]


def test_words():
    problem = statement("a", "Ihr  GRÖSSTES, 3-mal_größtes!\n`x+1`", "def f(n): ")
    assert words_of(problem) == (
        *("ihr", "grösstes", "3", "mal", "größtes", "x", "1"),
        *("def", "f", "n"),
    )


def test_a_character_is_a_word_where_no_spaces_are():
    problem = statement("a", "给定n个整数ab、求「最大ｶﾅ」。_データ・々〆\u3007 한국어 x𠮷y")
    assert words_of(problem) == (
        *("给", "定", "n", "个", "整", "数", "ab", "求", "最", "大", "ｶ", "ﾅ", "デ", "ー", "タ"),
        *("々", "〆", "\u3007", "한국어", "x", "𠮷", "y"),
    )


def test_thirteen_characters_in_a_row_overlap_in_chinese_and_twelve_do_not():
    text = "从上到下遍历这棵树并返回每层节点值之和的最大者"
    for shared, found in ((GRAM - 1, []), (GRAM, [("t", "h", "13-gram")])):
        train = [statement("t", f"另有题目{text[4 : 4 + shared]}。请作答")]
        assert pairs(train, [statement("h", text)]) == found


def test_same_id_comes_before_the_same_text():
    train = [statement("a", "One thing."), statement("b", "Two things."), statement("c", "Three.")]
    held_out = [statement("b", "two  THINGS"), statement("d", "one... thing?")]
    assert overlaps(train, held_out) == [
        Overlap("a", "d", "text"),
        Overlap("b", "b", "id"),
    ]


def test_one_id_in_another_case_is_the_same():
    """As mbpp/3 and MBPP+'s Mbpp/3, whose statements need not be equal."""
    words = story(0, 20)
    train = [statement("mbpp/3", " ".join(words))]
    for shared, found in ((5, [("mbpp/3", "Mbpp/3", "id")]), (4, [])):
        held_out = [statement("Mbpp/3", " ".join([*words[:shared], *story(1, 20)]))]
        assert pairs(train, held_out) == found


def test_an_id_alone_is_a_number_that_two_sets_have():
    """APPS numbers the problems of both its splits from 0."""
    train, held_out = (statement("apps/0", " ".join(story(n))) for n in (0, 1))
    assert pairs([train], [held_out]) == []
    assert pairs([statement("apps/0", "Add.")], [held_out]) == [("apps/0", "apps/0", "id")]


def test_thirteen_words_in_a_row_overlap_and_twelve_do_not():
    held_out = [statement("h", " ".join(story(0)))]
    for shared, found in ((GRAM - 1, []), (GRAM, [("t", "h", "13-gram")])):
        words = [*story(1, 20), *story(0)[5 : 5 + shared], *story(2, 20)]
        assert pairs([statement("t", " ".join(words))], held_out) == found


def test_shared_words_are_told_in_their_order():
    words = story(0)
    train = [statement("t", " ".join(["else", *(w.upper() for w in words[7:30])]))]
    (overlap,) = overlaps(train, [statement("h", ", ".join(words))])
    assert overlap.shared == " ".join(words[7:20])


def test_short_statements_overlap_by_their_whole_text_only():
    held_out = [statement("h", " ".join(story(0, 12)))]
    train = [
        statement("same", " ".join(story(0, 12)).upper()),
        statement("longer", " ".join([*story(0, 12), "more"])),
    ]
    assert pairs(train, held_out) == [("same", "h", "text")]


def test_no_words_are_no_text():
    assert pairs([statement("t", "+")], [statement("h", "-"), statement("i", "")]) == []


def test_starter_code_belongs_to_the_statement():
    # As in HumanEval, where it is all of it.
    doc = " ".join(story(0, 20))
    held_out = [statement("h", "See the docstring.", doc)]
    assert pairs([statement("t", "See the docstring.", "else")], held_out) == []
    assert pairs([statement("t", f"Please: {doc}")], held_out) == [("t", "h", "13-gram")]


def boilerplate(count: int) -> list[Problem]:
    """Problems that share the sentence on their input's format, and no more."""
    return [
        statement(f"h{i}", " ".join([*story(i, 20), FORMAT, *story(i + 1000, 20)]))
        for i in range(count)
    ]


def test_boilerplate_alone_is_no_overlap_nor_with_a_word_or_two_around_it():
    held_out = boilerplate(5)
    around = [*story(3, 20)[-4:], FORMAT, *story(1003, 20)[:4]]  # of h3
    train = [
        statement("t", " ".join([*story(-1), FORMAT, *story(-2)])),
        statement("u", " ".join([*story(-1), *around, *story(-2)])),
    ]
    assert len(FORMAT.split()) >= GRAM
    assert pairs(train, held_out) == []


def test_what_stands_beside_boilerplate_still_overlaps():
    train = [statement("t", " ".join([FORMAT, *story(1004, 20), FORMAT]))]
    assert pairs(train, boilerplate(5)) == [("t", "h4", "13-gram")]


def test_a_series_of_held_out_problems_does_not_hide_itself():
    words = story(0, 28)
    held_out = [
        statement(f"h{i}", " ".join([*words[:at], f"limit{i}", *words[at + 1 :]]))
        for i, at in enumerate((3, 12, 24))
    ]
    train = [statement("t", f"{held_out[1].prompt} Print one number for each test.")]
    # h2 has the 13 words in a row before its own one, h0 those after its own.
    assert pairs(train, held_out) == [("t", "h0", "13-gram"), ("t", "h1", "13-gram")]


@pytest.mark.parametrize(("own_words", "found"), [(10, 3), (11, 0)])
def test_texts_that_share_half_of_their_five_grams_are_variants(own_words, found):
    """All three have 14 words, 10 five-grams; each has as many others, or one more."""
    words = story(0, 14)
    texts = [" ".join([*words, *story(i + 1, own_words)]) for i in range(3)]
    held_out = [statement(f"h{i}", text) for i, text in enumerate(texts)]
    assert len(pairs([statement("t", " ".join(words))], held_out)) == found


def test_a_text_is_no_variant_of_a_longer_one_that_has_it():
    held_out = [statement("short", FORMAT), *boilerplate(3)]
    assert pairs([statement("t", f"{FORMAT} else")], held_out) == []


@pytest.mark.parametrize(("own_words", "found"), [(8, 0), (9, 1)])
@pytest.mark.parametrize("first", [True, False])
def test_five_words_are_boilerplate_wherever_in_the_gram(own_words, found, first):
    phrase = ["print", "the", "answer", "and", "exit"]

    def around(number: int) -> str:
        words = story(number, own_words)
        return " ".join([*phrase, *words] if first else [*words, *phrase])

    held_out = [statement(f"h{i}", around(i)) for i in range(3)]
    train = [statement("t", f"else {around(1)} else")]
    assert len(pairs(train, held_out)) == found


@pytest.mark.parametrize(("copies", "found"), [(1, 1), (2, 2), (3, 0)])
def test_a_sentence_of_several_held_out_problems_is_boilerplate(copies, found):
    assert len(pairs([statement("t", FORMAT)], boilerplate(copies))) == found


def test_in_a_large_set_several_is_more_than_one_in_a_hundred():
    others = [statement(f"o{i}", " ".join(story(5000 + i))) for i in range(297)]
    train = [statement("t", FORMAT)]
    assert len(pairs(train, boilerplate(3) + others)) == 3
    assert len(pairs(train, boilerplate(4) + others)) == 0


def test_copies_of_a_held_out_statement_do_not_make_it_boilerplate():
    words = " ".join(story(0))
    held_out = [statement(f"h{i}", words) for i in range(5)]
    train = [statement("t", f"But {words}")]
    assert pairs(train, held_out) == [("t", f"h{i}", "13-gram") for i in range(5)]


def test_train_may_come_once_and_either_may_be_empty():
    problem = statement("a", " ".join(story(0)))
    assert pairs((p for p in [problem]), [problem]) == [("a", "a", "id")]
    assert pairs([], [problem]) == pairs([problem], []) == []


WORDS = st.lists(st.sampled_from(["a", "b", "c d", "A", "é", "1"]), max_size=24).map(" ".join)


def shares(one: Problem, other: Problem) -> bool:
    """The rule itself, word by word."""
    grams = [
        {words[i : i + GRAM] for i in range(len(words) - GRAM + 1)}
        for words in (words_of(one), words_of(other))
    ]
    return words_of(one) == words_of(other) != () or bool(grams[0] & grams[1])


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, min_size=1, max_size=2))
def test_as_the_rule_says_where_nothing_is_boilerplate(train_texts, held_out_texts):
    train = [statement(f"t{i}", text) for i, text in enumerate(train_texts)]
    held_out = [statement(f"h{i}", text) for i, text in enumerate(held_out_texts)]
    expected = [(t.id, h.id) for t in train for h in held_out if shares(t, h)]
    assert [(o.train_id, o.held_out_id) for o in overlaps(train, held_out)] == expected


def test_finds_what_is_planted_among_many():
    draw = random.Random(0)
    common = [f"c{i}" for i in range(3000)]
    held_out = [statement(f"h{i}", " ".join(draw.choices(common, k=80))) for i in range(200)]
    train = [statement(f"t{i}", " ".join(draw.choices(common, k=80))) for i in range(500)]
    planted = {}
    for number in draw.sample(range(500), 25):
        source = draw.randrange(200)
        words, cut = held_out[source].prompt.split(), draw.randrange(60)
        text = train[number].prompt.split()
        text[30:50] = words[cut : cut + 20]
        train[number] = statement(f"t{number}", " ".join(text))
        planted[f"t{number}"] = f"h{source}"
    assert {o.train_id: o.held_out_id for o in overlaps(train, held_out)} == planted
