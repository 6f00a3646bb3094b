"""Tests as reward (RLVR): 1 when every test of the problem passes, else 0.

    python -m rlif_jax.train --config=configs/tests_passed.py

Expect exec/pass_rate to rise over some tens of steps (--steps 40).
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="tests_passed",
    reward=replace(BASE.reward, terms=(("tests_passed", 1.0),)),
)
