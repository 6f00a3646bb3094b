"""How compile time grows with depth: the decoder at 2 and at 28 layers, at SmolLM2's widths.

    python -m benchmarks.compile_time [--layers 2 28 --rows 16 --columns 256 --repeats 3]

Each figure is a fresh trace, lowering and compilation for these shapes, without weights and without
JAX's persistent cache, after one that is not timed and starts the compiler. `forward` goes to the
logits, `forward_backward` to the gradient of all parameters of the cross-entropy of the next token,
with remat as in training. The depths take turns within each repeat. One JSON line a figure: median
seconds, spread; the ratio is that of the deepest to the shallowest of the same repeat.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from rlif_jax.model.config import ModelConfig
from rlif_jax.model.decoder import Decoder
from rlif_jax.sharding import skip_absent_tpu


def config(layers: int) -> ModelConfig:
    """SmolLM2-135M at another depth."""
    return ModelConfig(
        vocab_size=49152,
        embed=576,
        ffn=1536,
        layers=layers,
        heads=9,
        kv_heads=3,
        head_dim=64,
        rope_theta=100_000.0,
        rms_eps=1e-5,
        remat="layer",
    )


def functions(graphdef: nnx.GraphDef) -> dict[str, Callable]:
    """Name -> function of (parameters, tokens [B, T])."""

    def forward(params, tokens_BT):
        return nnx.merge(graphdef, params).logits(tokens_BT)

    def loss(params, tokens_BT):
        logp_BTV = jax.nn.log_softmax(forward(params, tokens_BT)[:, :-1])
        return -jnp.take_along_axis(logp_BTV, tokens_BT[:, 1:, None], axis=-1).mean()

    return {"forward": forward, "forward_backward": jax.value_and_grad(loss)}


def compile_seconds(work: str, layers: int, shape: tuple[int, int]) -> float:
    """Seconds from the function to its executable."""
    jax.clear_caches()
    decoder = Decoder(config(layers), lambda _, s: jax.ShapeDtypeStruct(s.shape, jnp.float32))
    graphdef, params = nnx.split(decoder)
    tokens_BT = jax.ShapeDtypeStruct(shape, jnp.int32)
    start = time.perf_counter()
    jax.jit(functions(graphdef)[work]).lower(params, tokens_BT).compile()
    return time.perf_counter() - start


def rounded(values: list[float]) -> dict:
    """The median and the spread."""
    spread = [round(min(values), 2), round(max(values), 2)]
    return {"median": round(statistics.median(values), 2), "spread": spread}


def main() -> None:
    """Compile all in turn and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 28])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    skip_absent_tpu()
    jax.config.update("jax_enable_compilation_cache", False)
    shape = options.rows, options.columns
    for work in ("forward", "forward_backward"):
        compile_seconds(work, min(options.layers), shape)
        turns = [
            {n: compile_seconds(work, n, shape) for n in options.layers}
            for _ in range(options.repeats)
        ]
        for n in options.layers:
            seconds = rounded([turn[n] for turn in turns])
            figure = {"figure": f"compile {work}, {n} layers", "unit": "s", **seconds}
            print(json.dumps(figure), flush=True)
        deep, shallow = max(options.layers), min(options.layers)
        ratio = rounded([turn[deep] / turn[shallow] for turn in turns])
        figure = {"figure": f"compile {work}, {deep} over {shallow} layers", **ratio}
        print(json.dumps(figure | {"jax": jax.__version__}), flush=True)


if __name__ == "__main__":
    main()
