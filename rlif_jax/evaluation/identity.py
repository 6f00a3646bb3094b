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
    """The arguments, model and problems that samples depend on; with others they are other ones."""
    settings, limits = asdict(args), asdict(args.execution)
    for name in _IN_OTHER_KEYS | _WITHOUT_EFFECT:
        del settings[name]
    for name in _OF_THE_MACHINE:
        del limits[name]
    return plain(settings) | {
        "model": opened.source,
        "revision": opened.revision,
        "problems": len(held_out.problems),
        "digest": held_out.digest,
        "execution": plain(limits),
    }


def plain(fields: Any) -> Any:
    """What JSON can hold: no limit is null."""
    if isinstance(fields, Mapping):
        return {name: plain(value) for name, value in fields.items()}
    return None if fields == math.inf else fields
