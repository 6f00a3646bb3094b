"""Time and memory of attention over packed rows: the blocked way beside the plain one.

    python -m benchmarks.attention [--repeats 5] [--longest 8192] [--dtype float32]

The heads are SmolLM2-135M's. Shapes: one sequence of 512 columns, ten sequences in 2,048 columns, a
prompt with eight completions in 2,048, then one sequence, and sequences of about 400 columns, in
the longest row. `plain` holds all scores and is left out above 2,048 columns. The two take turns
within each repeat, after one untimed run of each. One JSON line per figure: median, least and
greatest of the repeats, and the compiled program's temporary memory.
"""

import argparse
import functools
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from rlif_jax.kernels.attention.api import attention
from rlif_jax.kernels.attention.segments import Segments

HEADS, KV_HEADS, WIDTH = 9, 3, 64


def packed(columns: int, sequences: int) -> Segments:
    """A row of so many sequences whose lengths differ."""
    ends = np.random.default_rng(0).choice(np.arange(1, columns), sequences - 1, replace=False)
    own_T = 1 + np.searchsorted(np.sort(ends), np.arange(columns), side="right")
    return Segments(jnp.asarray(own_T[None], jnp.int32))


def shared(columns: int, completions: int) -> Segments:
    """A row of one prompt and of completions of it, all of one length."""
    own_1T = 1 + jnp.arange(columns, dtype=jnp.int32)[None] * (completions + 1) // columns
    return Segments(own_1T, jnp.ones_like(own_1T))


def works(implementation: str):
    """Name -> function of (q, k, v, segments): forward, then forward and backward."""
    attend = functools.partial(attention, implementation=implementation)

    def total(q, k, v, segments):
        return (attend(q, k, v, segments).astype(jnp.float32) ** 2).sum()

    return {"forward": attend, "forward_backward": jax.value_and_grad(total, (0, 1, 2))}


def seconds(compiled, *args) -> float:
    """Wall-clock time of one run."""
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    return time.perf_counter() - start


def measure(shape: str, segments: Segments, dtype: str, repeats: int) -> None:
    """Print one line for each implementation and work."""
    T = segments.own.shape[1]
    keys = jax.random.split(jax.random.key(0), 3)
    heads = (HEADS, KV_HEADS, KV_HEADS)
    arrays = (
        jax.random.normal(key, (1, T, n, WIDTH), dtype) for key, n in zip(keys, heads, strict=True)
    )
    args = (*arrays, segments)
    names = ("blocked", "plain") if T <= 2048 else ("blocked",)
    for work in works(names[0]):
        compiled = {n: jax.jit(works(n)[work]).lower(*args).compile() for n in names}
        for fn in compiled.values():
            seconds(fn, *args)
        turns = [{n: seconds(fn, *args) for n, fn in compiled.items()} for _ in range(repeats)]
        for name, fn in compiled.items():
            times = [turn[name] for turn in turns]
            figure = {
                "benchmark": f"attention/{shape}/{work}/{name}",
                "columns": T,
                "dtype": dtype,
                "median_s": round(statistics.median(times), 4),
                "min_s": round(min(times), 4),
                "max_s": round(max(times), 4),
                "repeats": repeats,
                "temp_bytes": fn.memory_analysis().temp_size_in_bytes,
                "device": segments.own.device.device_kind,
            }
            print(json.dumps(figure), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each (default 5)")
    parser.add_argument("--longest", type=int, default=8192, help="columns (default 8192)")
    parser.add_argument("--dtype", default="float32", help="float32 (default) or bfloat16")
    options = parser.parse_args()
    shapes = {
        "one_sequence": packed(512, 1),
        "packed": packed(2048, 10),
        "shared_prompt": shared(2048, 8),
        "long_sequence": packed(options.longest, 1),
        "long_packed": packed(options.longest, options.longest // 400),
    }
    for shape, segments in shapes.items():
        measure(shape, segments, options.dtype, options.repeats)


if __name__ == "__main__":
    main()
