"""Plans of the study's configurations on the machines that they name.

    python -m benchmarks.paper_plans [--only qwen3] [--machine v5e]

Plans what was asked for as `python -m rlif_jax.plan` does, with the model shapes in the tests'
folder, and writes the figures into paper_plans.json beside this file, where others stay as they
are. Prints a row of a table for each. No accelerator is needed; what is compiled anew takes
minutes.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from rlif_jax.planning.ahead import settle_libtpu
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.forecast import forecast
from rlif_jax.planning.lengths import run_lengths
from rlif_jax.planning.report import run_figures
from tests.support.paper_settings import SETTINGS, Setting, published

PLANS = Path(__file__).with_suffix(".json")
GIB = 2**30
PARTS = ("prefill", "decode", "host", "score", "update")


def planned(setting: Setting) -> dict[str, Any]:
    """The figures of one configuration on one machine."""
    slice_ = Slice.parse(setting.machine)
    cfg = setting.config
    found = forecast(cfg, published(cfg), slice_, run_lengths(cfg, "paper"))
    ahead, step = found.ahead, found.step
    if step is None:
        raise SystemExit(f"{setting.name} does not fit: {found.refused[0]}")
    figures = run_figures(ahead, step, slice_, None)
    held = {stage.name: round(stage.held / GIB, 2) for stage in step.stages}
    return {
        "settings": setting.settings,
        "gib_of_chip": setting.gib_of_chip,
        "gib_held": held,
        "seconds": {part: round(seconds, 1) for part, seconds in step.seconds.items()},
        **{name: float(f"{value:.4g}") for name, value in figures.items()},
        "slot_use": round(step.slot_use, 2),
        "column_use": round(step.column_use, 2),
        "jax": jax.__version__,
        "libtpu": version("libtpu"),
    }


def row(setting: Setting, plan: dict[str, Any]) -> str:
    """A plan as a row of the table in RESULTS.md."""
    axes = " ".join(f"{axis}={n}" for axis, n in setting.axes.items() if n > 1)
    held = f"{max(plan['gib_held'].values()):.1f} of {plan['gib_of_chip']}"
    parts = " | ".join(f"{plan['seconds'][part]:.0f}" for part in PARTS)
    mfu, hours = f"{plan['mfu_update']:.0%}", f"{plan['chip_hours']:,.0f}"
    cells = (setting.folder, setting.machine, axes, str(setting.config.sampling.slots), held)
    return f"| {' | '.join(cells)} | {parts} | {plan['step_s']:.0f} | {mfu} | {hours} |"


def main() -> None:
    """Plan, store and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="folders of configs/paper/ whose name has this")
    parser.add_argument("--machine", default="", help="machines whose name has this")
    args = parser.parse_args()
    settle_libtpu()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)  # in the place of a node's GPUs
    stored = json.loads(PLANS.read_text()) if PLANS.exists() else {}
    for setting in SETTINGS:
        if args.only not in setting.folder or args.machine not in setting.machine:
            continue
        plan = planned(setting)
        stored.setdefault(setting.folder, {})[setting.machine] = plan
        PLANS.write_text(json.dumps(stored, indent=1) + "\n")
        print(row(setting, plan), flush=True)


if __name__ == "__main__":
    main()
