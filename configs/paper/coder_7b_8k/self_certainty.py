"""Self-certainty as reward for Qwen2.5-Coder-7B-Instruct.

    python -m rlif_jax.train --config=configs/paper/coder_7b_8k/self_certainty.py

Responses have up to 8,192 tokens. Add the flags of your machine:

    v5e:8x8     no flags: fsdp=16, tensor=4
    v6e:4x4     --mesh.fsdp=4
    v5p:2x2x4   --mesh.fsdp=4
    gpu:h100x8  --mesh.fsdp=2

The study saw, on LiveCodeBench v5: avg@4 fell from 15.8 to 14.1, pass@8 from 25.8 to 18.6.
"""

from dataclasses import replace

from configs.paper.base import CODER_8K
from rlif_jax.config import Reward

config = replace(
    CODER_8K,
    name="coder_7b_8k-self_certainty",
    reward=Reward(terms=(("self_certainty", 1.0),)),
)
