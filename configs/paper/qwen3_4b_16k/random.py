"""Control: a coin flip for each response of Qwen3-4B.

    python -m rlif_jax.train --config=configs/paper/qwen3_4b_16k/random.py

Responses have up to 16,384 tokens. Add the flags of your machine:

    v5e:8x8     no flags: fsdp=16, tensor=4
    v6e:4x4     --mesh.fsdp=4 --sampling.slots=640
    v5p:2x2x4   --mesh.fsdp=4
    gpu:h100x8  --mesh.fsdp=4 --mesh.tensor=2 --sampling.slots=768

No figure of the study for this model is quoted here; README.md has those of the others.
"""

from dataclasses import replace

from configs.paper.base import QWEN3_16K
from rlif_jax.config import Reward

config = replace(
    QWEN3_16K,
    name="qwen3_4b_16k-random",
    reward=Reward(terms=(("random", 1.0),)),
)
