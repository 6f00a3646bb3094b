"""Draw metrics of one or more runs against the step, one small panel for each.

    python -m rlif_jax.reporting.curves runs/prob_disparity runs/tests_passed --out runs.png
    python -m rlif_jax.reporting.curves RUN_DIR --out runs.png --keys reward/mean exec/pass_rate

The faint line is the value of a step, the strong line its running mean. Needs the `dev` extra.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from rlif_jax.errors import UserError, exit_on_user_error

DEFAULT_KEYS = (
    "reward/mean",
    "exec/pass_rate",
    "rollout/response_length",
    "stats/probability_disparity",
    "stats/token_entropy",
    "stats/self_certainty",
)

# Okabe and Ito's palette, told apart with every common colour blindness; yellow is left out as too
# pale on white. The dashes repeat the distinction for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")


def read_series(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of every key in a run folder's metrics.jsonl.

    A half-written last line, as a run in progress may have, is left out. Raises `UserError` for a
    folder without metrics.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: give the folder of a run that has finished a step."
        )
    series: dict[str, tuple[list[int], list[float]]] = {}
    for line in path.read_text("utf-8").split("\n")[:-1]:
        record = json.loads(line)
        step = record.pop("step")
        for key, value in record.items():
            steps, values = series.setdefault(key, ([], []))
            steps.append(step)
            values.append(value)
    return series


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and those up to window - 1 before it."""
    return [
        math.fsum(part) / len(part)
        for part in (values[max(end - window, 0) : end] for end in range(1, len(values) + 1))
    ]


def draw(runs: dict[str, dict], keys: Sequence[str], window: int, out: Path) -> None:
    """Write the figure: a panel for each key, in it a line for each run that has the key."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    columns = min(len(keys), 3)
    rows = math.ceil(len(keys) / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(4.0 * columns, 2.7 * rows + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for panel, key in zip(axes.flat, keys, strict=False):
        for number, series in enumerate(runs.values()):
            if key not in series:
                continue
            steps, values = series[key]
            colour = COLOURS[number % len(COLOURS)]
            dash = DASHES[number % len(DASHES)]
            # Evaluations come every few steps: their points are shown as they are.
            sparse = key.startswith("eval/")
            mean = values if sparse else running_mean(values, window)
            panel.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            panel.plot(steps, mean, dash, color=colour, linewidth=2, marker="o" if sparse else None)
        panel.set_title(key, fontsize=11)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes.flat[len(keys) :]:
        panel.set_visible(False)
    figure.supxlabel(f"step (strong line: mean of the last {window} steps)", fontsize=10)
    handles = [
        plt.Line2D([], [], color=COLOURS[n % len(COLOURS)], linestyle=DASHES[n % len(DASHES)], lw=2)
        for n in range(len(runs))
    ]
    figure.legend(handles, list(runs), loc="outside upper center", ncols=min(len(runs), 4))
    try:
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{out} could not be written: {error}. Give another --out FILE.png."
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs and write the figure. Raises `UserError` for a key that no run has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--keys", nargs="+", default=None, metavar="KEY", help="metrics.jsonl keys")
    parser.add_argument("--window", type=int, default=5, help="steps of the running mean")
    options = parser.parse_args(arguments)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            "matplotlib is not installed: install the dev extra with pip install -e '.[dev]'."
        ) from error
    if options.window < 1:
        raise UserError(f"--window {options.window} must be at least 1 step.")
    names = [run.resolve().name for run in options.runs]
    if len(set(names)) < len(names):  # same-named folders in different places
        names = [str(run) for run in options.runs]
    runs = {name: read_series(run) for name, run in zip(names, options.runs, strict=True)}
    known = {key for series in runs.values() for key in series}
    keys = options.keys or [key for key in DEFAULT_KEYS if key in known]
    missing = [key for key in keys if key not in known]
    if missing or not keys:
        raise UserError(
            f"No run has {', '.join(missing or DEFAULT_KEYS)}. Give --keys out of: "
            f"{', '.join(sorted(known)) or 'none, the runs are empty'}."
        )
    draw(runs, keys, options.window, options.out)
    print(f"wrote {options.out}: {len(keys)} panels, {len(runs)} runs")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
