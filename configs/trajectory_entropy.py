"""Certainty as reward: mean log-probability of the sampled tokens.

    python -m rlif_jax.train --config=configs/trajectory_entropy.py

Expect stats/trajectory_entropy to fall.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="trajectory_entropy",
    reward=replace(BASE.reward, terms=(("trajectory_entropy", 1.0),)),
)
