"""Novelty among votes by hand: EVOL-RL's rule, and what makes two programs alike."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.evidence import evidence

from rlif_jax.config import Reward
from rlif_jax.errors import UserError
from rlif_jax.problem import Outcome, Verdict
from rlif_jax.rewards.novelty import evol, program_tokens, syntax_pairs

WRONG, CRASH = Verdict.WRONG_ANSWER, Verdict.RUNTIME_ERROR


def answered(answer: str) -> Outcome:
    if answer == "-":
        return Outcome(CRASH, (CRASH,), 1, 0.1, answers=(None,))
    return Outcome(WRONG, (WRONG,), 1, 0.1, answers=(answer,))


def valued(votes: str, codes, similarity="tokens"):
    """The values of one group, a letter a vote."""
    ev = evidence(
        group_size=len(votes),
        outcomes=tuple(map(answered, votes)),
        mask=np.ones((len(votes), 3), bool),
    )
    return evol(replace(ev, codes=tuple(codes), settings=Reward(similarity=similarity)))


def lines(words: str) -> str:
    """A program of one name a line, the tokens of which are these names."""
    return "\n".join(words)


def test_a_group_by_hand():
    """Novelties of the majority 19/60, 23/70, 271/420; of the minority 19/30, 2/3."""
    codes = [lines(words) for words in ("abcd", "abcde", "abfg", "fgh", "h", "a")]
    got = valued("AAABC-", codes)
    np.testing.assert_allclose(got, [0.5, 0.5 + 0.5 * 5 / 138, 1.0, -1.0, -0.5, -1.0], rtol=1e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    ("votes", "codes", "want"),
    [
        ("AAB", "xxy", [0.75, 0.75, -0.5]),  # equal ones have 0.5, a single one 1
        ("AABC", "xxyy", [0.75, 0.75, -0.75, -0.75]),
        ("A--", "xyz", [1.0, -1.0, -1.0]),
        ("---", "xyz", [-1.0, -1.0, -1.0]),
        ("AABBC", "xxyzx", [0.5, 0.5, 1.0, 1.0, -0.5]),  # all of the largest are the majority
        ("ABC", "xxy", [0.5, 0.5, 1.0]),
    ],
)
def test_sides_of_one_and_of_equals_and_several_largest_classes(votes, codes, want):
    np.testing.assert_allclose(valued(votes, codes), want, rtol=1e-6)


def test_groups_are_compared_within_themselves():
    two = evidence(group_size=2, outcomes=tuple(map(answered, "AAAB")), mask=np.ones((4, 1), bool))
    np.testing.assert_allclose(evol(replace(two, codes=tuple("xxxy"))), [0.75] * 4)


def test_votes_may_have_inputs_of_their_own():
    ev = evidence(3, tuple(map(answered, "---")), mask=np.ones((3, 1), bool))
    ev = replace(ev, codes=tuple("xxy"), votes=tuple(map(answered, "AAB")))
    np.testing.assert_allclose(evol(ev), [0.75, 0.75, -0.5])


def test_syntax_is_alike_whatever_the_names():
    """Shared syntax 1, 1/2, 1/2; shared tokens 1/5, 1/2, 1/2."""
    codes = ["x = 1", "y = 2", "x = y"]
    np.testing.assert_allclose(valued("AAA", codes, "syntax"), [0.5, 0.5, 1.0])
    np.testing.assert_allclose(valued("AAA", codes, "tokens"), [1.0, 1.0, 0.5])


def test_a_program_without_syntax_of_its_own_is_compared_by_tokens():
    """The body of a function, which a problem's starter code completes."""
    codes = ["    return x", "return x", "y = 1"]
    np.testing.assert_allclose(valued("AAA", codes, "syntax"), [0.5, 0.5, 1.0])


def test_tokens_by_hand():
    assert program_tokens("if x:  # why\n    y = 'a b'\n\n") == ["if", "x", ":", "y", "=", "'a b'"]
    assert program_tokens("f(a, b.c") == ["f", "a", "b", "c"]  # never closed: words
    assert program_tokens("  x\n y") == ["x", "y"]  # indented as nothing is
    assert program_tokens("") == []


def test_syntax_by_hand():
    pairs = {"Module Assign": 1, "Assign Name": 1, "Assign BinOp": 1}
    pairs |= {"BinOp Name": 1, "BinOp Add": 1, "BinOp Constant": 1}
    assert syntax_pairs("x = y + 1") == Counter(pairs)
    for broken in ("x = ", "a\0b", "    x", "-" * 100_000 + "1"):
        assert syntax_pairs(broken) is None


def test_strange_escapes_are_not_warned_of(recwarn):
    assert syntax_pairs(r"x = '\d'") is not None
    assert not recwarn.list


def test_evidence_without_programs_is_refused():
    with pytest.raises(UserError, match=r"no codes for 4 rows.*give Evidence\.codes"):
        evol(replace(evidence(), codes=None))
    with pytest.raises(UserError, match="1 codes for 4 rows"):
        evol(replace(evidence(), codes=("x",)))
