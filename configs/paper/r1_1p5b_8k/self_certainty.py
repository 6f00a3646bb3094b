"""Self-certainty as reward for DeepSeek-R1-Distill-Qwen-1.5B.

    python -m rlif_jax.train --config=configs/paper/r1_1p5b_8k/self_certainty.py

Responses have up to 8,192 tokens. Add the flags of your machine:

    v5e:4x4     no flags: fsdp=8, tensor=2
    v6e:2x4     --mesh.fsdp=4
    v5p:2x2x2   --mesh.fsdp=4
    gpu:h100x8  --mesh.fsdp=4

The study saw, on LiveCodeBench v5: avg@4 fell from 13.1 to 9.2. With --loss.epochs=3 it peaked at
14.8 at step 20 and was 9.2 at step 103.
"""

from dataclasses import replace

from configs.paper.base import R1_8K
from rlif_jax.config import Reward

config = replace(
    R1_8K,
    name="r1_1p5b_8k-self_certainty",
    reward=Reward(terms=(("self_certainty", 1.0),)),
)
