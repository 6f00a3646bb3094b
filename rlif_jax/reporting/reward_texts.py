"""What each reward term gives to a response, in a line, and where it comes from."""

from collections.abc import Mapping
from typing import NamedTuple

from rlif_jax.errors import UserError
from rlif_jax.rewards.registry import find_reward

PAPER = "arXiv 2606.20881"
"""When Do Intrinsic Rewards Work for Code Reasoning?"""

_CLASSES = "classes are equal outputs on the problem's inputs, no expected output is used"


class RewardText(NamedTuple):
    """A reward's formula in a line, and its source; either may be empty."""

    formula: str
    source: str


REWARD_TEXTS: Mapping[str, RewardText] = {
    name: RewardText(*lines)
    for name, lines in {
        "probability_disparity": (
            "mean over tokens of p(1) - p(2), the two largest probabilities",
            PAPER,
        ),
        "self_certainty": (
            "mean of lse(z) - mean(z) = KL(U‖p) + ln V",
            "Intuitor, arXiv 2505.19590",
        ),
        "token_entropy": ("-mean of H(p)", "RENT, arXiv 2505.22660"),
        "token_entropy_sum": ("-sum of H(p)", "EM-RL, arXiv 2505.15134"),
        "trajectory_entropy": ("mean of ln p(token)", "EM-RL, arXiv 2505.15134"),
        "trajectory_entropy_sum": ("sum of ln p(token)", "EM-RL, arXiv 2505.15134"),
        "sequence_probability": (
            "the product of p(token), over the largest one of the group",
            "RLSC",
        ),
        "tests_passed": ("1 if every test passes, else 0", "RLVR"),
        "tests_fraction": ("share of the tests that pass", "RLVR"),
        "brier": (
            "1[pass] - (q - 1[pass])², with q the confidence of the response",
            "RLCR, arXiv 2507.16806",
        ),
        "majority_vote": (
            f"1 if the program is in the largest class of its group, else 0: {_CLASSES}",
            "TTRL, arXiv 2504.16084, carried over to programs",
        ),
        "vote_fraction": (
            f"share of the group that is in the program's class: {_CLASSES}",
            "TTRL, arXiv 2504.16084, carried over to programs",
        ),
        "soft_vote": (
            "mean over the others of the group of the share of inputs with equal answers",
            "functional majority voting, arXiv 2604.15618",
        ),
        "behaviour_entropy": (
            "vote_fraction, in groups whose votes have an entropy below reward.vote_entropy_max",
            "EMPO, arXiv 2504.05812",
        ),
        "teacher_vote": (
            "1 if the program is in the class that an averaged teacher votes for, else 0",
            "Co-rewarding-II, arXiv 2508.00410; M-GRPO, arXiv 2512.13070",
        ),
        "evol": (
            "0.5 + 0.5 n in the majority, -1 + 0.5 n in the minority, with n the novelty of the "
            "program; -1 without a vote",
            "EVOL-RL, arXiv 2509.15194",
        ),
        "codet": (
            "1 in the class with the largest (tests passed) · sqrt(programs), else 0: the policy "
            "writes the tests",
            "CodeT, arXiv 2207.10397",
        ),
        "b4": (
            "1 in the class that is most probably the right one, else 0: the policy writes the "
            "tests",
            "B4, arXiv 2409.08692",
        ),
        "generated_tests": (
            "share of the tests that pass: the policy writes them",
            "CURE, arXiv 2506.03136",
        ),
        "length": ("minus the number of tokens", "control"),
        "random": ("a fair coin", "control"),
        "constant": ("1", "control"),
        "shuffled": ("tests_passed of another response of the batch", "control"),
    }.items()
}


def reward_text(name: str) -> RewardText:
    """The line of a reward; of one's own reward the first line of its docstring, if it is known.

    Vertical bars, which would end the cell of a table, become slashes.
    """
    if name in REWARD_TEXTS:
        return REWARD_TEXTS[name]
    try:
        lines = (find_reward(name).__doc__ or "").strip().splitlines()
    except UserError:
        lines = []
    return RewardText(lines[0].replace("|", "/") if lines else "", "")


def reads_certainty(name: str) -> bool:
    """Whether a reward is the model's own certainty; False where the name is not known."""
    try:
        return getattr(find_reward(name), "needs", "") == "stats"
    except UserError:
        return False
