"""Control: a coin flip for each response of DeepSeek-R1-Distill-Qwen-1.5B.

    python -m rlif_jax.train --config=configs/paper/r1_1p5b_8k/random.py

Responses have up to 8,192 tokens. Add the flags of your machine:

    v5e:4x4     no flags: fsdp=8, tensor=2
    v6e:2x4     --mesh.fsdp=4
    v5p:2x2x2   --mesh.fsdp=4
    gpu:h100x8  --mesh.fsdp=4

No figure of the study for this run is quoted here; README.md has those of the others.
"""

from dataclasses import replace

from configs.paper.base import R1_8K
from rlif_jax.config import Reward

config = replace(
    R1_8K,
    name="r1_1p5b_8k-random",
    reward=Reward(terms=(("random", 1.0),)),
)
