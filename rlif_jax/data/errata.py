"""LiveCodeBench problems whose official tests reject right programs, so that a reward is noise."""

from collections.abc import Mapping

from rlif_jax.problem import Problem

PLATFORMS = ("leetcode", "codeforces", "atcoder")
"""What official rows have in their field platform."""

_GROUPS = {
    "several answers are right, one is accepted": (
        "abc311_c abc326_d abc327_b abc333_e abc343_a abc343_e abc362_c arc185_c "
        "find-the-peaks find-words-containing-character "
        "generate-binary-strings-without-adjacent-zeros"
    ),
    "interactive": "abc337_e abc355_e",
    "wrong tests": ("abc350_c apply-operations-to-make-string-empty arc189_a most-frequent-ids"),
}
ERRATA: Mapping[str, str] = {
    name: reason for reason, names in _GROUPS.items() for name in names.split()
}
"""Reason by question id, or by title in lower case with dashes for LeetCode's numbered problems.

Source: LiveCodeBench's ERRATA.md (commit 28fef95).
"""


def erratum_reason(problem: Problem) -> str | None:
    """Why the tests of an official LiveCodeBench problem cannot be trusted; None when they can.

    Official is a problem whose metadata name one of `PLATFORMS`. It is listed by its id or, on
    LeetCode, whose ids are numbers, by its title.
    """
    platform = problem.metadata.get("platform")
    if platform not in PLATFORMS:
        return None
    name = problem.id
    if platform == "leetcode" and name.isdigit():
        name = "-".join(str(problem.metadata.get("question_title", "")).lower().split())
    return ERRATA.get(name)


def is_erratum(problem: Problem) -> bool:
    """Whether an official LiveCodeBench problem is listed in `ERRATA`."""
    return erratum_reason(problem) is not None
