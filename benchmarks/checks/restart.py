"""How long a run takes to start again: with nothing compiled, and with what an earlier start kept.

python -m benchmarks.checks.restart [--config configs/prob_disparity.py] [--turns 3] [FLAG ...]

Each turn trains two steps in a new folder with an empty cache of compiled stages, and then resumes
that run for two steps more. Start-up is the time from the command to the end of the first step,
less the duration of the second step, which neither loads nor compiles. One JSON line a figure:
median, least and most seconds, and how long the warm start is of the cold one. Downloads are taken
from the user's cache before.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rlif_jax.storage.user_cache import cache_folder

ROOT = Path(__file__).parents[2]


def start_up(command: Sequence[str], cache: Path) -> float:
    """Seconds before and beside the work of the first step of this start, which does two steps."""
    begun = time.monotonic()
    environment = os.environ | {"RLIF_CACHE": str(cache), "CI": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        lines = [time.monotonic() for line in process.stdout if line.startswith("step ")]
    if process.returncode or len(lines) != 2:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    first, second = lines
    return first - begun - (second - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", default="configs/prob_disparity.py")
    parser.add_argument("--turns", type=int, default=3)
    asked, flags = parser.parse_known_args()
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.turns):
            cache = Path(folder, f"cache{turn}")
            if cache_folder().is_dir():  # what was downloaded; nothing that was compiled
                shutil.copytree(cache_folder(), cache, ignore=shutil.ignore_patterns("xla*"))
            command = [
                *(sys.executable, "-m", "rlif_jax.train", f"--config={asked.config}", *flags),
                *("--eval.every=0", "--checkpoint.every=2", f"--run-dir={folder}/run{turn}"),
            ]
            for kind, steps in (("cold", 2), ("warm", 4)):
                seconds[kind].append(start_up([*command, f"--steps={steps}"], cache))
    for kind, measured in seconds.items():
        spread = [round(value, 1) for value in (min(measured), max(measured))]
        median = round(statistics.median(measured), 1)
        print(json.dumps({"name": f"restart.{kind}", "seconds": median, "spread": spread}))
    ratios = [warm / cold for cold, warm in zip(seconds["cold"], seconds["warm"], strict=True)]
    print(
        json.dumps({"name": "restart.warm_of_cold", "ratio": round(statistics.median(ratios), 2)})
    )


if __name__ == "__main__":
    main()
