"""Certainty as reward: negative mean entropy of the token distributions (RENT).

    python -m rlif_jax.train --config=configs/token_entropy.py

Expect stats/token_entropy to fall.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="token_entropy",
    reward=replace(BASE.reward, terms=(("token_entropy", 1.0),)),
)
