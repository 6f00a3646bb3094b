"""Self-certainty as reward for Qwen3-4B.

    python -m rlif_jax.train --config=configs/paper/qwen3_4b_16k/self_certainty.py

Responses have up to 16,384 tokens. Add the flags of your machine:

    v5e:8x8     no flags: fsdp=32, context=2
    v6e:4x4     --mesh.fsdp=16 --mesh.context=1 --sampling.slots=192 --sampling.cache-gib=16
    v5p:2x2x4   --mesh.fsdp=16 --mesh.context=1 --sampling.slots=768 --sampling.cache-gib=64
    gpu:h100x8  --mesh.fsdp=8 --mesh.context=1 --sampling.cache-gib=42

No figure of the study for this model is quoted here; README.md has those of the others.
"""

from dataclasses import replace

from configs.paper.base import QWEN3_16K
from rlif_jax.config import Reward

config = replace(
    QWEN3_16K,
    name="qwen3_4b_16k-self_certainty",
    reward=Reward(terms=(("self_certainty", 1.0),)),
)
