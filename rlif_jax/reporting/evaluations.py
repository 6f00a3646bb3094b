"""Results of `rlif_jax.evaluate` as the page shows them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlif_jax.errors import UserError
from rlif_jax.evaluation.results import samples_path
from rlif_jax.reporting.run_facts import run_of


@dataclass(frozen=True)
class Evaluation:
    """A result file in words: scores by name, and how certainty tells correct samples from others.

    `certainty` has for each reward its mean over correct and over incorrect samples, the area under
    the ROC curve, and the accuracy of choosing the sample with the largest reward.
    """

    name: str
    model: str
    data: str
    samples: str
    scores: Mapping[str, str]
    certainty: Mapping[str, Sequence[str]]
    samples_file: Path
    data_source: str


def read_evaluation(path: Path) -> Evaluation:
    """Read a result.

    Raises:
        UserError: the file cannot be read, or is no result.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        overall = found["scores"]["overall"]
        arguments, n = found["arguments"], found["scores"]["n"]
        return Evaluation(
            name=path.name.removesuffix(".json"),
            model=_short(found["model"]["source"]),
            data=f"{_short(found['data']['name'])}, {found['data']['problems']} problems",
            samples=f"{n} each at temperature {arguments['temperature']:g}, "
            f"at most {arguments['max_new_tokens']} tokens",
            scores={
                name: _estimate(value, 100 if name not in ("length",) else 1)
                for name, value in overall["statistics"].items()
            },
            certainty={
                name: [
                    _estimate(one.get(column), 100 if column == "argmax_accuracy" else 1)
                    for column in ("correct_mean", "incorrect_mean", "auroc", "argmax_accuracy")
                ]
                for name, one in found["certainty"]["rewards"].items()
            },
            samples_file=samples_path(str(path)),
            data_source=str(found["data"]["name"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as a result ({type(error).__name__}: {error}). Give a file "
            "that `python -m rlif_jax.evaluate --out` wrote, or run folders."
        ) from error


def _short(source: str) -> str:
    """A model's or data set's name; of a path its end, of a checkpoint its run and its step."""
    if place := run_of(source):
        return f"{place[0].name}, step {place[1]}"
    return source if source.startswith(("hf:", "pypi:")) else source.rstrip("/").rpartition("/")[2]


def _estimate(value: Any, scale: float) -> str:
    """A number with its interval, as far as a result has them."""
    estimate = value if isinstance(value, Mapping) else {"value": value}
    digits = 1 if scale == 100 else 2
    texts = [
        "" if (number := estimate.get(name)) is None else f"{scale * number:.{digits}f}"
        for name in ("value", "low", "high")
    ]
    if not texts[0]:
        return "-"
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if texts[1] and texts[2] else texts[0]
