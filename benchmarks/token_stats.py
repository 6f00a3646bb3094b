"""Time and memory of token statistics, ours beside a bare matmul and the plain way.

    python -m benchmarks.token_stats [--tokens 2048 --hidden 576 --vocabulary 49152 --repeats 5]

The defaults are the head of SmolLM2-135M over 2,048 tokens. `bare_matmul` only multiplies, and
writes all logits; `plain` is logsumexp, entropy and lax.top_k over all logits. The three take turns
within each repeat, so that a busy machine slows them alike, after one untimed run of each. One JSON
line per figure: median, least and greatest of the repeats, temporary memory of the compiled
program, and the median of the ratios to the bare matmul of the same repeat.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp

from rlif_jax.kernels.token_stats import api as token_stats
from rlif_jax.kernels.token_stats import plain as token_stats_reference


def programs(target):
    """Name -> function of (x, head), forward, then forward and backward."""
    forward = {
        "bare_matmul": lambda x, head: x @ head.T,
        "ours": lambda x, head: token_stats.token_stats(x, head, target, 1.0),
        "plain": lambda x, head: token_stats_reference.token_stats(x, head, target, 1.0),
    }

    def gradient(fn):
        loss = lambda x, head: fn(x, head).logprob.sum()
        return jax.value_and_grad(loss, (0, 1))

    def three_matmuls(x, head):
        logits, pull = jax.vjp(forward["bare_matmul"], x, head)
        return pull(logits)

    backward = {"bare_matmul": three_matmuls}
    backward |= {name: gradient(forward[name]) for name in ("ours", "plain")}
    return {"forward": forward, "forward_backward": backward}


def seconds(compiled, *args) -> float:
    """Wall-clock time of one run."""
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    return time.perf_counter() - start


def measure(work: str, functions, args, repeats: int) -> None:
    """Print one line per function."""
    compiled = {name: jax.jit(fn).lower(*args).compile() for name, fn in functions.items()}
    for fn in compiled.values():
        seconds(fn, *args)
    turns = [{name: seconds(fn, *args) for name, fn in compiled.items()} for _ in range(repeats)]
    for name, fn in compiled.items():
        times = [turn[name] for turn in turns]
        ratios = [turn[name] / turn["bare_matmul"] for turn in turns]
        figure = {
            "benchmark": f"token_stats/{work}/{name}",
            "median_s": round(statistics.median(times), 4),
            "min_s": round(min(times), 4),
            "max_s": round(max(times), 4),
            "repeats": repeats,
            "ratio_to_bare_matmul": round(statistics.median(ratios), 3),
            "temp_bytes": fn.memory_analysis().temp_size_in_bytes,
            "output_bytes": fn.memory_analysis().output_size_in_bytes,
            "device": args[0].device.device_kind,
        }
        print(json.dumps(figure), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=2048, help="tokens (default 2048)")
    parser.add_argument("--hidden", type=int, default=576, help="embedding width (default 576)")
    parser.add_argument("--vocabulary", type=int, default=49152, help="columns (default 49152)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each (default 5)")
    options = parser.parse_args()
    x_key, head_key, target_key = jax.random.split(jax.random.key(0), 3)
    x_TD = jax.random.normal(x_key, (options.tokens, options.hidden))
    head_VD = jax.random.normal(head_key, (options.vocabulary, options.hidden)) * 0.05
    target_T = jax.random.randint(target_key, (options.tokens,), 0, options.vocabulary, jnp.int32)
    for work, functions in programs(target_T).items():
        measure(work, functions, (x_TD, head_VD), options.repeats)


if __name__ == "__main__":
    main()
