"""The study's runs of DeepSeek-R1-Distill-Qwen-1.5B with responses of up to 8,192 tokens.

    python -m rlif_jax.study --suite configs/study/paper.py --commands

Rewards, the sweeps of temperature, group size, epochs and KL, and GRPO for 40 steps from the
checkpoints of certainty (arXiv 2606.20881). configs/paper/README.md says how to get the problems;
each command is a job, see configs/study/README.md. The mesh is that of v5e:4x4.
"""

from dataclasses import replace

from configs.paper.base import R1_8K
from configs.study.laptop import rewarded
from rlif_jax.config import Stage, Suite, Sweep

CERTAINTY = ("self_certainty", "token_entropy", "trajectory_entropy", "probability_disparity")
ALL = ("tests_passed", *CERTAINTY)

suite = Suite(
    name="paper",
    base=replace(R1_8K, name="r1_1p5b_8k"),
    methods={name: rewarded(name) for name in ("tests_passed", "random")}
    | {name: rewarded(name) | {"checkpoint.keep_every": 10} for name in CERTAINTY}
    | {"tests_passed_3_epochs": {"loss.epochs": 3, "loss.dual_clip": 10.0}},
    sweeps=(
        Sweep("sampling.temperature", (0.8, 1.2), ALL),
        Sweep("sampling.samples_per_prompt", (8, 12), ALL),
        Sweep("loss.epochs", (3,), CERTAINTY),
        Sweep("loss.kl_coef", (0.001, 0.005), CERTAINTY),
    ),
    stages=tuple(
        Stage(
            "tests_passed",
            after=name,
            at=(50, 80, 105),
            optimizer="kept",
            fields={"steps": 40},
        )
        for name in CERTAINTY
    ),
)
