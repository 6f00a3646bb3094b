"""Control: the same reward for every response, so the advantage is zero.

    python -m rlif_jax.train --config=configs/constant.py

Expect parameters to change by weight decay only: what remains isolates the optimiser.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="constant",
    reward=replace(BASE.reward, terms=(("constant", 1.0),)),
)
