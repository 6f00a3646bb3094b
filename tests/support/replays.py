"""Short runs that a replay does again, and what they leave."""

import json
from pathlib import Path

from support.small_runs import config

SEED = 5


def arguments(flags: list[str], folder: Path, *more: str, name: str = "hybrid") -> list[str]:
    """A run of three steps, each of which moves the parameters far and is saved."""
    return [
        config(name),
        *flags,
        *("--steps=3", "--eval.every=0", "--checkpoint.every=1", "--checkpoint.keep=3"),
        *("--optim.learning-rate=0.05", "--optim.warmup-steps=0", f"--seed={SEED}"),
        *(f"--run-dir={folder}", *more),
    ]


def rows(folder: Path, number: int) -> list[dict]:
    return [json.loads(x) for x in (folder / f"rollouts/step_{number:06d}.jsonl").open()]


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "provenance.jsonl").open()]
