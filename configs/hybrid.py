"""Tests and certainty together: each term is normalised within its group, then they are added.

The weighted sum is the advantage: nothing normalises it again.

    python -m rlif_jax.train --config=configs/hybrid.py

Expect exec/pass_rate to rise as with tests_passed; certainty decides within the groups in which all
or none of the samples pass, at a tenth of the size.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="hybrid",
    reward=replace(
        BASE.reward,
        terms=(("tests_passed", 1.0), ("probability_disparity", 0.1)),
        combine="normalise_then_sum",
    ),
    loss=replace(BASE.loss, advantage="none"),
)
