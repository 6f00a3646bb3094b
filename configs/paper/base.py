"""The study's settings (arXiv 2606.20881), and with them the models that it trains.

A file in a folder beside this one takes a model from here and sets the reward. README.md lists
them, the sweeps, and how to get the problems that BASE names.

The study does not say, as far as we know, which 6.7K problems it trains on, how they are posed and
how long a test may run. We choose: problems of the same two sources (problems.py), LiveCodeBench's
published prompt for each model, and 6 CPU seconds where a problem names no limit.
"""

from dataclasses import replace

from configs.paper.machines import first
from rlif_jax.config import (
    Checkpoint,
    Config,
    Data,
    Eval,
    Loss,
    Model,
    Optim,
    PromptStyle,
    Sampling,
    Thinking,
    own_limits,
)

BASE = Config(
    steps=105,  # one pass: 105 * 64 = 6,720 problems
    model=Model(dtype="bfloat16"),
    data=Data(name="jsonl:paper_problems.jsonl", prompts_per_step=64, max_prompt_tokens=2048),
    sampling=Sampling(samples_per_prompt=16, temperature=1.0),
    loss=Loss(
        advantage="grpo",
        clip_low=0.2,
        clip_high=0.2,
        dual_clip=3.0,
        aggregation="token_mean",
        kl_coef=0.0,
        entropy_coef=0.0,
        epochs=1,
        mini_batches=2,
    ),
    optim=Optim(learning_rate=1e-6, warmup_steps=10, weight_decay=0.1, clip_norm=1.0),
    execution=own_limits(),
    eval=Eval(data="livecodebench_v5", every=10, temperature=0.8, samples_per_problem=4, pass_at=4),
    # At the end 50, 60, 70, 80, 90, 100 and 105 are there: the study starts GRPO from 50, 80, 105.
    checkpoint=Checkpoint(every=10, keep=7),
)


def of_model(
    folder: str,
    source: str,
    max_new_tokens: int,
    prompt_style: PromptStyle,
    thinking: Thinking = "template",
) -> Config:
    """BASE with a model, its longest response and its prompts, for the folder's first machine."""
    config = replace(
        BASE,
        model=replace(BASE.model, source=source),
        data=replace(BASE.data, prompt_style=prompt_style, thinking=thinking),
        sampling=replace(BASE.sampling, max_new_tokens=max_new_tokens),
    )
    return first(folder).applied(config)


R1 = "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
R1_8K = of_model("r1_1p5b_8k", R1, 8192, "livecodebench_deepseek_r1")
R1_16K = of_model("r1_1p5b_16k", R1, 16384, "livecodebench_deepseek_r1")
# LiveCodeBench's messages in Qwen3's own template, which switches its thinking on.
QWEN3_16K = of_model("qwen3_4b_16k", "hf:Qwen/Qwen3-4B", 16384, "livecodebench", "on")
CODER_8K = of_model("coder_7b_8k", "hf:Qwen/Qwen2.5-Coder-7B-Instruct", 8192, "livecodebench_qwen")
