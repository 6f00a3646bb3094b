"""Where the seconds of a training step go.

    python -m benchmarks.step --config=configs/prob_disparity.py --steps 5

Trains in a temporary folder without evaluation and prints one JSON line for each phase: its median
seconds over the steps after the first (which compiles), their spread, and its share of the step.
`execute` is the waiting for tests that sampling and scoring did not hide. The last line is the
peak memory of the process.
"""

import dataclasses
import json
import resource
import statistics
import tempfile
from pathlib import Path

from rlif_jax.config import load
from rlif_jax.errors import exit_on_user_error
from rlif_jax.run.clock import PHASES
from rlif_jax.train import train


def main() -> None:
    """Run the configuration of the command line and print its figures."""
    with exit_on_user_error(), tempfile.TemporaryDirectory() as folder:
        config = load(prog="python -m benchmarks.step")
        quiet = dataclasses.replace(config.eval, every=0)
        unsaved = dataclasses.replace(config.checkpoint, every=0)
        train(dataclasses.replace(config, run_dir=folder, eval=quiet, checkpoint=unsaved))
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines][1:]
    whole = statistics.median(step["time/step"] for step in steps)
    for phase in (*PHASES, "step"):
        seconds = sorted(step[f"time/{phase}"] for step in steps)
        median = statistics.median(seconds)
        figure = {
            "figure": phase,
            "seconds": round(median, 3),
            "spread": [round(seconds[0], 3), round(seconds[-1], 3)],
            "share": round(median / whole, 3),
        }
        print(json.dumps(figure))
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"figure": "peak memory", "gib": round(peak_kib / 2**20, 2)}))


if __name__ == "__main__":
    main()
