"""Which problems of a training set are, or are like, problems held out for evaluation.

A statement is normalised to its words: lower case, runs of letters and digits; in Chinese and
Japanese, which have no spaces, each character is a word. Two problems overlap by "text" when their
words are the same, and by "13-gram" when 13 words in a row of one stand in the other. That is
GPT-3's rule (Brown et al. 2020, arXiv 2005.14165, appendix C: "a gram as a lowercase, whitespace
delimited word with no punctuation"), which also ignores 13-grams of many documents, as boilerplate.
Shorter statements overlap by their whole text only.

Before that they overlap by "id" when their ids are the same but for case (mbpp/3 and MBPP+'s
Mbpp/3), and five words in a row stand in both or one has fewer than 13: sets number their problems
alike.

Statements of contests have more boilerplate than text at large, in ever new combinations with names
and bounds. So five words in a row are boilerplate when they stand in several statements held out
(more than 2 different ones, and more than one in a hundred), and a 13-gram counts only if it has no
boilerplate in it. "The input is given from standard input in the following format" makes no
overlap. Two texts of which each has half of the other's five-grams, or more, are variants of one
problem and not different here, so that a series of problems does not hide itself.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlif_jax.problem import Problem

GRAM = 13
PHRASE = 5
"""Words of which boilerplate is made."""

How = Literal["id", "text", "13-gram"]

# Kana and ideographs, by the blocks of Unicode 16; marks and punctuation among them are no words.
_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}](?<=[^\W_])|(?:(?![{_UNSPACED}])[^\W_])+")
_Words = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """A problem to train on and one held out that should not be together in a run.

    `how` is the first that holds of "id", "text" and "13-gram"; `shared` is the first 13-gram that
    they share, in lower case, and "" with the other two.
    """

    train_id: str
    held_out_id: str
    how: How
    shared: str = ""


def words_of(problem: Problem) -> _Words:
    """The words of the statement and of the starter code, which may be all that tells (HumanEval).

    They are in lower case and without punctuation.
    """
    return tuple(_WORD.findall(f"{problem.prompt}\n{problem.starter_code}".lower()))


def overlaps(train: Iterable[Problem], held_out: Iterable[Problem]) -> list[Overlap]:
    """Every pair of a problem of `train` and one of `held_out` that overlap, in their order.

    Both are read once, and no problem is kept, whose tests may be many megabytes. Statements
    without words overlap with nothing by their text.
    """
    index = _Index(held_out)
    return [overlap for problem in train for overlap in index.overlaps(problem)]


class _Index:
    """The problems held out, by id, by words and by 13-gram.

    13-grams are found by a hash and then compared word by word.
    """

    def __init__(self, held_out: Iterable[Problem]):
        self._ids: list[str] = []
        self._texts: list[_Words] = []
        self._by_id: dict[str, list[int]] = {}
        self._by_text: dict[_Words, list[int]] = {}
        for number, problem in enumerate(held_out):
            self._ids.append(problem.id)
            self._texts.append(words_of(problem))
            self._by_id.setdefault(problem.id.casefold(), []).append(number)
            self._by_text.setdefault(self._texts[-1], []).append(number)
        self._by_text.pop((), None)
        vocabulary = dict.fromkeys(word for text in self._by_text for word in text)
        random = np.random.default_rng(0)
        codes_V = random.integers(1, 2**64 - 1, len(vocabulary), np.uint64)
        self._codes = dict(zip(vocabulary, codes_V.tolist(), strict=True))
        self._factors_G = random.integers(1, 2**64 - 1, GRAM, np.uint64) | np.uint64(1)
        self._numbers_of = self._countable_grams()
        self._hashes_H = np.array(sorted(self._numbers_of), np.uint64)

    def overlaps(self, problem: Problem) -> list[Overlap]:
        """One overlap for each problem held out, in their order, by the first rule that holds."""
        text = words_of(problem)
        found: dict[int, Overlap] = {}

        def add(numbers: Iterable[int], how: How, shared: str = "") -> None:
            for number in numbers:
                if number not in found:
                    found[number] = Overlap(problem.id, self._ids[number], how, shared)

        same = self._by_id.get(problem.id.casefold(), ())
        add((number for number in same if self._alike(text, self._texts[number])), "id")
        add(self._by_text.get(text, ()), "text")
        for words, numbers in self._shared_grams(text):
            add(numbers, "13-gram", " ".join(words))
        return [found[number] for number in sorted(found)]

    def _alike(self, text: _Words, held_out: _Words) -> bool:
        """Whether statements of one id may be those of one problem."""
        short = min(len(text), len(held_out)) < GRAM
        own, others = (self._hashes(words, PHRASE) for words in (text, held_out))
        return short or len(np.intersect1d(own, others)) > 0

    def _shared_grams(self, text: _Words) -> Iterable[tuple[_Words, list[int]]]:
        """The countable 13-grams of a text, in order, with the problems held out that have them."""
        hashes_P = self._hashes(text, GRAM)
        if not len(hashes_P) or not len(self._hashes_H):
            return
        places_P = np.searchsorted(self._hashes_H, hashes_P)
        places_P[places_P == len(self._hashes_H)] = 0
        for start in np.flatnonzero(self._hashes_H[places_P] == hashes_P).tolist():
            words, numbers = self._numbers_of[int(hashes_P[start])]
            if text[start : start + GRAM] == words:
                yield words, numbers

    def _countable_grams(self) -> dict[int, tuple[_Words, list[int]]]:
        """By hash, the 13-grams without boilerplate in them, and the problems that have them."""
        phrases = {text: self._hashes(text, PHRASE) for text in self._by_text}
        boilerplate = np.array(_boilerplate(list(phrases.values())), np.uint64)
        grams: dict[int, tuple[_Words, list[int]]] = {}
        for text, phrases_P in phrases.items():
            own = self._by_text[text]
            boilerplate_P = np.isin(phrases_P, boilerplate)
            for start, gram in enumerate(self._hashes(text, GRAM).tolist()):
                if not boilerplate_P[start : start + GRAM - PHRASE + 1].any():
                    numbers = grams.setdefault(gram, (text[start : start + GRAM], []))[1]
                    if numbers[-1:] != own[-1:]:  # a text may have a gram twice
                        numbers += own
        return grams

    def _hashes(self, text: _Words, length: int) -> np.ndarray:
        """A hash of the `length` words from each place on, modulo 2**64: uint64 [places].

        Words that are not held out count as one.
        """
        if len(text) < length:
            return np.empty(0, np.uint64)
        codes_W = np.fromiter((self._codes.get(word, 0) for word in text), np.uint64, len(text))
        windows_PG = np.lib.stride_tricks.sliding_window_view(codes_W, length)
        return (windows_PG * self._factors_G[:length]).sum(axis=1, dtype=np.uint64)


def _boilerplate(phrases_TP: Sequence[np.ndarray]) -> list[int]:
    """The phrases, out of each text's, that stand in several different texts."""
    phrases_TU = [np.unique(phrases_P) for phrases_P in phrases_TP]
    texts_of: dict[int, list[int]] = {}
    for text, phrases_U in enumerate(phrases_TU):
        for phrase in phrases_U.tolist():
            texts_of.setdefault(phrase, []).append(text)
    several = max(2, len(phrases_TU) // 100)

    @functools.cache
    def variants(one: int, other: int) -> bool:
        first_U, second_U = phrases_TU[one], phrases_TU[other]
        enough = max(len(first_U), len(second_U)) / 2
        return (
            min(len(first_U), len(second_U)) >= enough
            and len(np.intersect1d(first_U, second_U, assume_unique=True)) >= enough
        )

    def in_several(texts: Sequence[int]) -> bool:
        different: list[int] = []
        for text in texts:
            if not any(variants(one, text) for one in different):
                different.append(text)
            if len(different) > several:
                return True
        return False

    return [p for p, texts in texts_of.items() if len(texts) > several and in_several(texts)]
