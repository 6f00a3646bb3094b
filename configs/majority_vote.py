"""Majority vote for code: 1 when as many samples as any gave this program's outputs, else 0.

    python -m rlif_jax.train --config=configs/majority_vote.py

Programs run on the inputs of the problem; expected outputs are never looked at. Expect reward/mean,
the share of samples in a largest class of their prompt, to rise as the samples come to agree, and
samples without a working program to become rare first. exec/pass_rate follows as long as the
majority is right more often than not; agreement on a wrong answer is rewarded just the same.
"""

from dataclasses import replace

from configs.base import BASE

config = replace(
    BASE,
    name="majority_vote",
    reward=replace(BASE.reward, terms=(("majority_vote", 1.0),)),
)
