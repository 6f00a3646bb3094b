"""Certainty as reward: top-1 minus top-2 probability, averaged over the response.

    python -m rlif_jax.train --config=configs/prob_disparity.py

Expect stats/probability_disparity to rise within a few steps while stats/token_entropy falls. The
reward sees no test; exec/pass_rate only follows what becomes of accuracy.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="prob_disparity",
    reward=replace(BASE.reward, terms=(("probability_disparity", 1.0),)),
)
