"""Control: a coin flip for each response.

    python -m rlif_jax.train --config=configs/random.py

Expect no trend in exec/pass_rate or in the certainty statistics; what moves here moves by itself.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="random",
    reward=replace(BASE.reward, terms=(("random", 1.0),)),
)
