"""What decides the samples of an evaluation, as the first line of its samples file has it."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rlif_jax.evaluation.arguments import Arguments
from rlif_jax.evaluation.drawing import HeldOut
from rlif_jax.weights.source import OpenModel

_IN_OTHER_KEYS = {"execution", "keep_errata", "skip_bad", "max_problems", "max_prompt_tokens"}
_WITHOUT_EFFECT = {"out", "lcb_out", "compare", "common", "processes", "k", "compile_cache"}
_OF_THE_MACHINE = {"workers", "monitor"}


def identity(args: Arguments, opened: OpenModel, held_out: HeldOut) -> dict[str, Any]:
    """The arguments, model and problems that samples depend on; with others they are other ones.

    `weights` tells a model from another one that was in the same place; None where the source is
    exact, and in files of older versions.
    """
    exact = opened.revision is not None or opened.source.startswith("pypi:")
    return settings(args) | {
        "model": opened.source,
        "revision": opened.revision,
        "weights": None if exact else opened.weights.fingerprint(),
        "problems": len(held_out.problems),
        "digest": held_out.digest,
    }


def settings(args: Arguments) -> dict[str, Any]:
    """The arguments that samples depend on, as JSON holds them."""
    fields, limits = asdict(args), asdict(args.execution)
    ignored = _IN_OTHER_KEYS | _WITHOUT_EFFECT
    kept = {name: value for name, value in fields.items() if name not in ignored}
    limits = {name: value for name, value in limits.items() if name not in _OF_THE_MACHINE}
    return plain(kept | {"execution": limits})


def plain(fields: Any) -> Any:
    """What JSON can hold: no limit is null."""
    if isinstance(fields, Mapping):
        return {name: plain(value) for name, value in fields.items()}
    return None if fields == math.inf else fields
