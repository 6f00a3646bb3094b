"""Certainty as reward: negative mean entropy of the token distributions (RENT).

    python -m rlif_jax.train --config=configs/token_entropy.py

Expect stats/token_entropy to fall.
"""

from dataclasses import replace

from configs.base import BASE
from rlif_jax.config import Reward

config = replace(
    BASE,
    name="token_entropy",
    reward=Reward(terms=(("token_entropy", 1.0),)),
)
