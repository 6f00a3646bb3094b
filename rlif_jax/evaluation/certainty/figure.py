"""The certainty analysis as a figure of print size."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from rlif_jax.errors import UserError
from rlif_jax.evaluation.certainty.analysis import Analysis, RewardAnalysis

# Okabe and Ito's palette, told apart with every common colour blindness; yellow is left out as too
# pale on white. Markers and dashes repeat the distinction for print without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_CORRECT, _INCORRECT = _COLOURS[0], _COLOURS[1]

_TITLES = {
    "self_certainty": ("self-certainty", "nats, mean over tokens"),
    "token_entropy": ("token entropy, negative", "nats, mean over tokens"),
    "trajectory_entropy": ("trajectory entropy, negative", "nats, mean over tokens"),
    "probability_disparity": ("probability disparity", "probability, mean over tokens"),
    "token_entropy_sum": ("token entropy, negative sum", "nats, sum over tokens"),
    "trajectory_entropy_sum": ("log-probability of response", "nats, sum over tokens"),
}
_CONFIDENCES = {
    "probability_disparity": "probability disparity",
    "trajectory_entropy": "mean token probability",
    "trajectory_entropy_sum": "response probability",
}
_STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.4,
}
_COLUMNS = 3
_HATCH = "////"


def figure(analysis: Analysis, path: str | Path) -> None:
    """Draw an analysis into `path`; its ending (.png, .pdf, .svg) chooses the format.

    A panel for each reward with the distributions of correct and incorrect samples; accuracy by
    tenths of reward; calibration of the rewards that stand for a probability; accuracy of the
    sample with the largest reward against a random and the best one. Raises `UserError` when the
    file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    rows = math.ceil(len(analysis.rewards) / _COLUMNS)
    with plt.rc_context(_STYLE):
        drawing = plt.figure(figsize=(7.2, 1.75 * rows + 2.9), layout="constrained")
        # Apart, so that the names beside the last panel take no room from the upper columns.
        heights = (1.75 * rows, 2.9)
        (upper,), (lower,) = drawing.subfigures(2, 1, squeeze=False, height_ratios=heights)
        panels = upper.subplots(rows, _COLUMNS, squeeze=False)
        for panel, (name, each) in zip(panels.flat, analysis.rewards.items(), strict=False):
            _distributions(panel, name, each)
        for panel in panels.flat[len(analysis.rewards) :]:
            panel.set_visible(False)
        for panel in panels[:, 0]:
            panel.set_ylabel("density")
        samples = analysis.problems * analysis.n
        correct = round(analysis.random.value * samples)
        handles = [
            Rectangle((0, 0), 1, 1, label=f"{correct} correct", **_look(_CORRECT, None)),
            Rectangle(
                (0, 0), 1, 1, label=f"{samples - correct} incorrect", **_look(_INCORRECT, _HATCH)
            ),
            Line2D([], [], color="0.3", linewidth=1.2, label="means, 95% interval shaded"),
        ]
        upper.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
        left, middle, right = lower.subplots(1, 3)
        _reliability(left, analysis)
        _calibration(middle, analysis)
        _argmax(right, analysis)
        try:
            drawing.savefig(path, dpi=300)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} could not be written: {error}. Give a file name that ends in .png, .pdf "
                "or .svg, in a folder that exists."
            ) from error
        finally:
            plt.close(drawing)


def _look(colour: str, hatch: str | None) -> dict[str, Any]:
    return {"facecolor": f"{colour}40", "edgecolor": colour, "hatch": hatch, "linewidth": 0.8}


def _distributions(panel: Any, name: str, each: RewardAnalysis) -> None:
    """Densities of both classes, each of area one, and their means."""
    edges = np.array(each.histogram.edges)
    width = edges[1] - edges[0]
    classes = (
        (each.histogram.incorrect, each.incorrect_mean, _INCORRECT, _HATCH),
        (each.histogram.correct, each.correct_mean, _CORRECT, None),
    )
    for counts, mean, colour, hatch in classes:
        if mean is None:
            continue
        density = np.array(counts) / (sum(counts) * width)
        panel.stairs(density, edges, fill=True, **_look(colour, hatch))
        panel.axvline(mean.value, color=colour, linewidth=1.2, linestyle="--" if hatch else "-")
        if mean.low is not None:
            panel.axvspan(mean.low, mean.high, color=colour, alpha=0.15, linewidth=0)
    title, unit = _TITLES.get(name, (name, "reward"))
    panel.set_title(title)
    panel.set_xlabel(unit)
    panel.set_yticks([])
    panel.set_ylim(top=1.35 * panel.get_ylim()[1])  # room for the text
    panel.set_xlim(edges[0], edges[-1])
    if each.rank_biserial is not None and each.auroc is not None:
        panel.text(
            0.03,
            0.96,
            f"$r$ = {each.rank_biserial.value:+.2f}\nAUROC {each.auroc.value:.2f}",
            transform=panel.transAxes,
            va="top",
            bbox={"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 1},
        )


def _reliability(panel: Any, analysis: Analysis) -> None:
    """Accuracy in each tenth of the samples by reward."""
    for number, (name, each) in enumerate(analysis.rewards.items()):
        share = np.cumsum([0, *(b.samples for b in each.reliability)])
        middle = 100 * (share[:-1] + share[1:]) / 2 / share[-1]
        panel.plot(
            middle,
            [b.accuracy for b in each.reliability],
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=2.8,
            linewidth=0.9,
            clip_on=False,
            label=_TITLES.get(name, (name,))[0],
        )
    mean = analysis.random.value
    panel.axhline(mean, color="0.4", linewidth=0.8, linestyle=":", label="all samples")
    panel.set_title("accuracy by reward")
    panel.set_xlabel("percentile of reward (lowest to highest)")
    panel.set_ylabel("accuracy")
    panel.set_xlim(0, 100)
    panel.set_ylim(bottom=0)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), frameon=False, ncols=1)


def _calibration(panel: Any, analysis: Analysis) -> None:
    """Accuracy against confidence; a calibrated confidence lies on the diagonal."""
    panel.plot([0, 1], [0, 1], color="0.4", linewidth=0.8, linestyle=":", label="calibrated")
    for number, (name, each) in enumerate(analysis.rewards.items()):
        if each.calibration is None:
            continue
        panel.plot(
            [b.mean for b in each.calibration],
            [b.accuracy for b in each.calibration],
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=2.8,
            linewidth=0.9,
            clip_on=False,
            label=f"{_CONFIDENCES[name]}, ECE {each.calibration_error:.2f}",
        )
    panel.set_title("calibration")
    panel.set_xlabel("confidence")
    panel.set_ylabel("accuracy")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), frameon=False, ncols=1)


def _argmax(panel: Any, analysis: Analysis) -> None:
    """Accuracy of each problem's most certain sample, between a random and the best one."""
    lines = (
        (analysis.random, f"random sample (avg@{analysis.n})", "0.4", ":"),
        (analysis.oracle, f"best sample (pass@{analysis.n})", "black", "--"),
    )
    for estimate, label, colour, dash in lines:
        panel.axvline(estimate.value, color=colour, linewidth=1.0, linestyle=dash, label=label)
        panel.axvspan(estimate.low, estimate.high, color=colour, alpha=0.12, linewidth=0)
    names = list(analysis.rewards)
    for number, name in enumerate(names):
        best = analysis.rewards[name].argmax_accuracy
        assert best.low is not None and best.high is not None  # as every score in [0, 1] has
        panel.errorbar(
            best.value,
            number,
            xerr=[[best.value - best.low], [best.high - best.value]],
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4,
            linewidth=1.2,
            capsize=2,
        )
    panel.set_yticks(range(len(names)), [_TITLES.get(name, (name,))[0] for name in names])
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.locator_params(axis="x", nbins=4)
    panel.set_title(f"most certain of {analysis.n} samples")
    panel.set_xlabel("accuracy, 95% interval")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), frameon=False, ncols=1)
