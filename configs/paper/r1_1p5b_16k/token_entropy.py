"""Negative token entropy as reward for DeepSeek-R1-Distill-Qwen-1.5B.

    python -m rlif_jax.train --config=configs/paper/r1_1p5b_16k/token_entropy.py

Responses have up to 16,384 tokens. Add the flags of your machine:

    v5e:4x4     no flags: fsdp=8, tensor=2
    v6e:2x4     --mesh.fsdp=4
    v5p:2x2x2   --mesh.fsdp=4
    gpu:h100x8  --mesh.fsdp=4

The study saw, on LiveCodeBench v5: avg@4 of 15.9 before, 17.2 after 20 steps, 15.8 after 50, 14.5
after 80 and 13.8 after 105.
"""

from dataclasses import replace

from configs.paper.base import R1_16K
from rlif_jax.config import Reward

config = replace(
    R1_16K,
    name="r1_1p5b_16k-token_entropy",
    reward=Reward(terms=(("token_entropy", 1.0),)),
)
