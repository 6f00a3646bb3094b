"""Certainty as reward: mean KL divergence from the uniform distribution (Intuitor).

    python -m rlif_jax.train --config=configs/self_certainty.py

Expect stats/self_certainty to rise.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="self_certainty",
    reward=replace(BASE.reward, terms=(("self_certainty", 1.0),)),
)
