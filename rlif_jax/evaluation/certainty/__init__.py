"""Does certainty tell correct responses from incorrect ones? On the samples of an evaluation."""

from rlif_jax.evaluation.certainty.analysis import Analysis, RewardAnalysis, analyse
from rlif_jax.evaluation.certainty.figure import figure
from rlif_jax.evaluation.certainty.intrinsic import INTRINSIC, rewards_of

__all__ = ["INTRINSIC", "Analysis", "RewardAnalysis", "analyse", "figure", "rewards_of"]
