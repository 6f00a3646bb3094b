"""How long a report takes and how large it is: a hundred runs of a hundred steps, and ten of them.

    python -m benchmarks.report_page [--rounds 3 --runs 100 --steps 100]

The runs are made: 60 metrics a step with noise, three seeds of each method; each step
has 32 completions of some 250 characters that hardly compress, and every tenth step the certainty
of their tokens. Prints one JSON line a number of runs: seconds from the folders to the page, by
median and spread of the rounds, in a process that has imported what it needs, and megabytes.
"""

import argparse
import dataclasses
import json
import random
import string
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from rlif_jax.config import Config
from rlif_jax.reporting.page import Options, render
from rlif_jax.reporting.recorded_runs import folders_of, read_runs
from rlif_jax.run.provenance import resolved
from rlif_jax.run.token_record import TokenRecord, recorded_at, token_file

ROWS, TOKENS = 32, 60
STUDY = (
    *("rollout/response_length", "rollout/action_reward", "rollout/reasoning_tokens"),
    *("rollout/repetition_ratio", "stats/trajectory_entropy", "stats/token_entropy"),
    *("stats/self_certainty", "stats/probability_disparity", "reward/mean", "exec/pass_rate"),
)


def write_run(folder: Path, number: int, steps: int) -> None:
    """A run of the method number // 3 with the seed number % 3."""
    folder.mkdir(parents=True)
    rollouts = folder / "rollouts"
    rollouts.mkdir()
    rng, letters = np.random.default_rng(number), random.Random(number)
    config = dataclasses.replace(
        Config(),
        name=folder.name,
        seed=number % 3,
        steps=steps,
        loss=dataclasses.replace(Config().loss, kl_coef=number // 3 / 100),
    )
    (folder / "config.json").write_text(json.dumps({"config": resolved(config)}))
    lines = []
    for step in range(steps + 1):
        record: dict[str, float] = {"step": step}
        if step % 10 == 0:
            record["eval/starter/avg@4"] = float(rng.uniform(0.1, 0.3))
        if step:
            record |= {name: float(abs(rng.normal(1, 0.2))) for name in STUDY}
            record |= {f"more/{n}": float(rng.normal()) for n in range(50)}
            write_rollouts(folder, step, letters, rng)
        lines.append(json.dumps(record))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def write_rollouts(
    folder: Path, step: int, letters: random.Random, rng: np.random.Generator
) -> None:
    """The completions of a step, each of `TOKENS` tokens of four characters."""
    rows = []
    for row in range(ROWS):
        text = "".join(letters.choices(string.printable[:95], k=4 * TOKENS))
        problem = f"problem{(step + row // 8) % 36}"
        rows.append(
            {
                **{"id": problem, "prompt": f"Solve {problem}. " * 10, "completion": text},
                **{"passed": row % 3 == 0, "verdict": "passed", "tests": ["passed"] * 6},
                **{"tests_total": 6, "sample": row % 8, "reward": row / ROWS, "length": TOKENS},
            }
        )
    path = folder / "rollouts" / f"step_{step:06d}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if recorded_at(10, step):
        values = rng.uniform(0, 1, (4, ROWS * TOKENS)).astype(np.float16)
        ends = np.tile(4 * np.arange(1, TOKENS + 1, dtype=np.uint32), ROWS)
        lengths = np.full(ROWS, TOKENS, np.uint32)
        record = TokenRecord(lengths, -values[0], values[1], values[2], values[3], ends)
        token_file(folder, step).write_bytes(record.encoded())


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs, then the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made) / f"run{number}-s{number % 3}" for number in range(options.runs)]
        for number, folder in enumerate(folders):
            write_run(folder, number, options.steps)
        for count in dict.fromkeys((min(10, options.runs), options.runs)):
            seconds, size = [], 0
            for _ in range(options.rounds + 1):
                start = time.perf_counter()
                page = render(read_runs(folders_of(folders[:count])), [], Options())
                seconds.append(time.perf_counter() - start)
                size = len(page.encode())
            print(
                json.dumps(
                    {
                        "figure": f"report of {count} runs of {options.steps} steps",
                        "seconds": round(median(seconds[1:]), 2),
                        "spread": [round(min(seconds[1:]), 2), round(max(seconds[1:]), 2)],
                        "megabytes": round(size / 1e6, 2),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
