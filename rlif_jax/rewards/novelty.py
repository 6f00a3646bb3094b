"""Reward of votes that holds programs unlike the others above their like: EVOL-RL.

Programs are compared as texts, by the tokens or by the syntax that they share; the authors compare
what an embedding model makes of the reasoning. Source: arXiv 2509.15194.
"""

import ast
import io
import re
import tokenize
import warnings
from collections import Counter
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rlif_jax.batch import Array, Evidence
from rlif_jax.rewards.consensus import classes_of
from rlif_jax.rewards.registry import reward
from rlif_jax.rewards.verifiable import of_each_row

_BLANK = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
_EQUAL = 1e-9  # novelties nearer to one another differ by the order of a sum


@reward(needs="exec", all_tests=True)
def evol(ev: Evidence) -> Array:
    """The majority has 0.5 + 0.5 n, the minority -1 + 0.5 n, a row without a vote -1.

    The majority is the largest class of equal programs, and of several largest ones each; the
    minority is all other programs that vote. n is the novelty of the program, 1 - (half its mean
    similarity to the others of its side + half its largest similarity to any other that votes),
    scaled from the least to the most of its side, to [0, 1]. A program that is alone on its side
    has n = 1, and where all of a side are as novel they have n = 0.5, as in the authors' code.
    """
    rows, kind = ev.mask.shape[0], ev.settings.similarity
    codes = of_each_row(ev, "codes", "the program")
    value_B = np.full(rows, -1.0)
    for classes in classes_of(ev):
        most = max(map(len, classes), default=0)
        majority = [row for one in classes if len(one) == most for row in one]
        minority = [row for one in classes if len(one) < most for row in one]
        voters = majority + minority
        features = [_features(codes[row] or "") for row in voters]
        alike = [_similarity(one, other, kind) for one in features for other in features]
        alike_VV = np.reshape(alike, (len(voters), len(voters)))
        first = len(majority)
        for side, worth in ((slice(0, first), 0.5), (slice(first, len(voters)), -1.0)):
            value_B[voters[side]] = worth + 0.5 * _scaled(_novelty(alike_VV, side))
    return jnp.asarray(value_B, jnp.float32)


def _novelty(alike_VV: np.ndarray, side: slice) -> np.ndarray:
    """The novelty of the programs of one side, from the similarity of all that vote."""
    others_VV = ~np.eye(len(alike_VV), dtype=bool)
    count = max(len(alike_VV[side]) - 1, 1)
    mean = alike_VV[side, side].sum(axis=1, where=others_VV[side, side]) / count
    largest = alike_VV[side].max(axis=1, where=others_VV[side], initial=0.0)
    return 1 - (mean + largest) / 2


def _scaled(novelty: np.ndarray) -> np.ndarray:
    """From [least, most] to [0, 1]; 1 of a single one, 0.5 of equal ones."""
    if novelty.size < 2:
        return np.ones_like(novelty)
    least, spread = novelty.min(), np.ptp(novelty)
    return (novelty - least) / spread if spread > _EQUAL else np.full_like(novelty, 0.5)


class _Features(NamedTuple):
    """What a program is compared by; `syntax` is None where it cannot be parsed by itself."""

    tokens: Counter[str]
    syntax: Counter[str] | None


def _features(code: str) -> _Features:
    return _Features(Counter(program_tokens(code)), syntax_pairs(code))


def _similarity(one: _Features, other: _Features, kind: str) -> float:
    """Jaccard index of two multisets, in [0, 1]: shared occurrences over all of them.

    Tokens stand in for the syntax where one of the two has none.
    """
    if kind == "syntax" and one.syntax is not None and other.syntax is not None:
        mine, theirs = one.syntax, other.syntax
    else:
        mine, theirs = one.tokens, other.tokens
    return (mine & theirs).total() / max((mine | theirs).total(), 1)


def program_tokens(code: str) -> list[str]:
    """The Python tokens of a program without comments and blanks; words where it has none."""
    try:
        found = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError):
        return [word for word in re.split(r"\W+", code) if word]
    return [token.string for token in found if token.type not in _BLANK and token.string]


def syntax_pairs(code: str) -> Counter[str] | None:
    """How often each kind of syntax node stands in each kind; None of what does not parse."""
    try:
        with warnings.catch_warnings():  # of escapes in its strings
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return Counter(
        f"{type(node).__name__} {type(child).__name__}"
        for node in ast.walk(tree)
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, ast.expr_context)  # follows from where it stands
    )
