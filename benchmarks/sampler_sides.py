"""Our sides of benchmarks/sampler.py, each in a process of its own; see sampler_peers.py.

    python -m benchmarks.sampler_sides {ours|bare} FOLDER [--cache-dtype bfloat16]

`ours` is `rlif_jax.sampler`, `bare` the yardstick of sampler_dense.py; FOLDER is a Hugging Face
folder with the model. JSON lines: {"ready": VERSIONS, "imported": when the imports were done, by
the monotonic clock} once the model is loaded; then an answer to each line of standard input:

- {"rows": B, "new_tokens": T, "prompt": [ids]}: B samples of the one prompt, T tokens each, at
  temperature 1, EOS off, with TokenStats unless "stats" is false. {"seconds": s, "tokens": B * T,
  "first": seconds until the first finished sample, "compiled": programs compiled meanwhile}.
- {"memory": true}: {"resident": MB, "peak": MB} of the process.

`ours` alone:

- {"mixed": {"prompts": [[ids]], "limits": [tokens], "cap": most tokens, "slots": B,
  "static": bool}}: samples of just these lengths, the same number of each prompt, by continuous
  batching with room for `cap` tokens each; or, static, B at a time, each batch until its longest is
  over. The answer has "useful", the share of the slot-steps that gave a token, too.
- {"drift": true} and the first line's: what the sampler's TokenStats differ, by mean and at most,
  from float32 scoring of the same tokens; and the cache's size in "cache", MB.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.sampler_dense import make_bare
from benchmarks.sampler_peers import answers, memory
from rlif_jax.batch import Prompts, Rollout
from rlif_jax.config import Config, Data, Sampling
from rlif_jax.model.cache import init_cache
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.pool_shape import Batching, pool_shape
from rlif_jax.sampler.requests import Finished, Request
from rlif_jax.sampler.sampler import Sample, Sampler
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.step import make_stages
from rlif_jax.weights.source import load_model

Answer = Callable[[dict], dict]
_COMPILE = "/jax/core/compile/backend_compile_duration"


class Ours:
    """The sampler."""

    def __init__(self, folder: str, cache_dtype: str):
        self._model, tokenizer = load_model(folder)
        self._graphdef, self._params = nnx.split(self._model)
        self._batching = Batching(cache_dtype=cache_dtype)
        self._sampler = Sampler(self._model, tokenizer, self._batching)
        self._seeds = count()
        self._mixed: dict[tuple[int, bool], Engine] = {}

    def answer(self, request: dict) -> dict:
        """What one line asks for."""
        if "mixed" in request:
            return self._mixed_lengths(**request["mixed"])
        if request.get("drift"):
            return self._drift(request)
        start = time.perf_counter()
        samples = self._generate(request)
        first = next(samples)
        seconds_to_first = time.perf_counter() - start
        every = [first, *samples]
        seconds = time.perf_counter() - start
        _check([len(s.tokens) for s in every], [request["new_tokens"]] * request["rows"])
        tokens = request["rows"] * request["new_tokens"]
        return {"seconds": seconds, "tokens": tokens, "first": seconds_to_first}

    def _generate(self, request: dict) -> Iterator[Sample]:
        return self._sampler.generate(
            [request["prompt"]],
            n=request["rows"],
            max_new_tokens=request["new_tokens"],
            ignore_eos=True,
            stats=request.get("stats", True),
            seed=next(self._seeds),
        )

    def _mixed_lengths(
        self, prompts: list[list[int]], limits: list[int], cap: int, slots: int, static: bool
    ) -> dict:
        batching = Batching(slots=slots, narrow_for=0 if static else Batching.narrow_for)
        key = slots, static
        if key not in self._mixed:
            self._mixed[key] = Engine(
                self._graphdef, batching=batching, temperature=1.0, eos_ids=()
            )
        each = len(limits) // len(prompts)
        shape = pool_shape(
            self._model.cfg,
            batching,
            prompt=max(map(len, prompts)),
            new=cap,
            samples=each,
            sequences=len(limits),
        )
        keys = jax.random.split(jax.random.key(next(self._seeds)), len(limits))
        data = np.asarray(jax.random.key_data(keys))
        requests = [Request(i // each, data[i], limit) for i, limit in enumerate(limits)]
        batch = slots if static else len(requests)
        usage, lengths, start = Usage(), [], time.perf_counter()
        for at in range(0, len(requests), batch):
            some = requests[at : at + batch]
            finished: list[Finished] = [
                one
                for several in self._mixed[key].run(
                    self._params, prompts, some, shape=shape, usage=usage
                )
                for one in several
            ]
            lengths += [len(one.tokens) for one in sorted(finished, key=lambda one: one.request)]
        seconds = time.perf_counter() - start
        _check(lengths, limits)
        useful = usage.useful / usage.slot_steps
        return {"seconds": seconds, "tokens": sum(limits), "useful": useful}

    def _drift(self, request: dict) -> dict:
        samples = sorted(self._generate(request), key=lambda sample: sample.index)
        B, C, prompt = len(samples), request["new_tokens"], request["prompt"]
        tokens_BC = np.stack([sample.tokens for sample in samples])
        stats_BC = jax.tree.map(lambda *rows: np.stack(rows), *(s.stats for s in samples))
        prompt_1P = np.asarray(prompt, np.int32)[None]
        rollout = Rollout(
            prompts=Prompts(tokens=prompt_1P, mask=np.ones(prompt_1P.shape, bool)),
            tokens=tokens_BC,
            mask=np.ones((B, C), bool),
            stats=stats_BC,
            truncated=np.ones(B, bool),
            length=np.full(B, C),
        )
        cfg = Config(
            data=Data(prompts_per_step=1, max_prompt_tokens=len(prompt)),
            sampling=Sampling(samples_per_prompt=B, max_new_tokens=C),
        )
        stages = make_stages(cfg, self._graphdef, pad_id=0)
        scored_BC, _ = stages.score.certainty(self._params, rollout, stages.pack)
        off = jax.tree.map(lambda ours, theirs: abs(ours - theirs), stats_BC, scored_BC)
        drift = {
            name: {"mean": float(diff_BC.mean()), "largest": float(diff_BC.max())}
            for name, diff_BC in vars(off).items()
        }
        return {"drift": drift, "cache": self._cache_mb(len(prompt), C, B)}

    def _cache_mb(self, prompt: int, new: int, rows: int) -> float:
        cfg = self._model.cfg
        shape = pool_shape(
            cfg, self._batching, prompt=prompt, new=new, samples=rows, sequences=rows
        )
        cache = jax.eval_shape(
            lambda: init_cache(
                cfg, pages=shape.pages, page=shape.page, dtype=shape.dtype, kernel=shape.kernel
            )
        )
        return sum(x.size * x.dtype.itemsize for x in (cache.k, cache.v)) / 1e6


class Bare:
    """The yardstick."""

    def __init__(self, folder: str, cache_dtype: str):
        model, _ = load_model(folder)
        self._graphdef, self._params = nnx.split(model)
        self._programs: dict[int, Callable] = {}
        self._seeds = count()

    def answer(self, request: dict) -> dict:
        """What one line asks for."""
        rows, new_tokens = request["rows"], request["new_tokens"]
        if new_tokens not in self._programs:
            self._programs[new_tokens] = make_bare(self._graphdef, new_tokens=new_tokens)
        start = time.perf_counter()
        key_B = jax.random.split(jax.random.key(next(self._seeds)), rows)
        prompt_P = jnp.asarray(request["prompt"], jnp.int32)
        tokens, _ = jax.device_get(self._programs[new_tokens](self._params, prompt_P, key_B))
        seconds = time.perf_counter() - start
        _check([len(row) for row in tokens], [new_tokens] * rows)
        return {"seconds": seconds, "tokens": rows * new_tokens, "first": seconds}


def _check(lengths: list[int], asked: list[int]) -> None:
    if lengths != asked:
        sys.exit(f"asked for completions of {asked} tokens, got {lengths}")


def main() -> None:
    """Load, then answer until standard input ends."""
    imported = time.monotonic()
    sides = {"ours": Ours, "bare": Bare}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("side", choices=sides)
    parser.add_argument("folder")
    parser.add_argument("--cache-dtype", default="")
    options = parser.parse_args()
    say = answers()
    skip_absent_tpu()
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if event == _COMPILE else None
    )
    side = sides[options.side](options.folder, options.cache_dtype)
    say({"ready": f"jax {jax.__version__}", "imported": imported})
    for line in sys.stdin:
        request = json.loads(line)
        before = len(compiled)
        answer = memory() if request.get("memory") else side.answer(request)
        answer["compiled"] = len(compiled) - before
        say(answer)


if __name__ == "__main__":
    main()
