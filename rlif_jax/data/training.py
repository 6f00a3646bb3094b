"""The problems that a configuration trains on, none of which evaluation holds out."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain

from rlif_jax.config import Data
from rlif_jax.console.notice import Notice
from rlif_jax.data.overlap import Overlap, overlaps
from rlif_jax.data.pipeline import Mixture, Share
from rlif_jax.data.selection import (
    Filter,
    date_filter,
    errata_filter,
    least_tests_filter,
    length_filter,
    listed,
    pass_rate_filter,
    select_each,
    value_filter,
)
from rlif_jax.data.sets.named import problem_source
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

Batches = grain.DatasetIterator[list[Problem]]


def training_filters(data: Data, encode: Callable[[Problem], Sequence[int]]) -> list[Filter]:
    """The filters that a configuration asks for, in the order in which they are applied.

    The grading comes last: it need not know problems that are left out anyway. Raises UserError
    when data.dates or data.graded cannot be used.
    """
    filters = [
        value_filter(field, wanted, option)
        for field, wanted, option in (
            ("platform", data.platforms, "data.platforms"),
            ("difficulty", data.difficulties, "data.difficulties"),
        )
        if wanted
    ]
    if data.dates:
        filters.append(date_filter(data.dates))
    if data.min_tests:
        filters.append(least_tests_filter(data.min_tests))
    if not data.keep_errata:
        filters.append(errata_filter())
    filters.append(length_filter(encode, data.max_prompt_tokens))
    if data.graded:
        filters.append(pass_rate_filter(Path(data.graded), *data.pass_rates))
    return filters


def training_problems(
    data: Data,
    encode: Callable[[Problem], Sequence[int]],
    held_out: Sequence[Problem],
    notice: Notice,
    more: Sequence[Filter] = (),
) -> Mixture:
    """The problems to train on: those of data.mix, or of data.name, that pass the filters.

    Those of the configuration are followed by `more`. `encode` gives the tokens of a problem's
    prompt. `notice` is told in a sentence what is left out
    of each set, and of an overlap with the `held_out` problems that is allowed.

    Raises UserError when a set cannot be opened or mixed, and as `select` and `refuse_overlap` do.
    """
    statements: list[Problem] = []
    length = longest = 0

    def measured(problem: Problem) -> Sequence[int]:
        nonlocal length
        length = len(tokens := encode(problem))
        return tokens

    def remember(problem: Problem) -> bool:
        nonlocal longest
        longest = max(longest, length)
        statements.append(dataclasses.replace(problem, tests=()))
        return True

    # The last filter removes nothing: it spares a second pass to look for overlaps. Each problem
    # goes through all filters, or up to the one that removes it, before the next one does.
    filters = [*training_filters(data, measured), *more, Filter("", remember)]
    weights = data.mix or ((data.name, 1.0),)
    sources = [
        (name, problem_source(name, "train", skip_bad=data.skip_bad, notice=notice))
        for name, _ in weights
    ]
    selected = select_each(sources, filters)
    shares = [
        Share(name, kept, weight)
        for (name, weight), (kept, _) in zip(weights, selected, strict=True)
    ]
    for (name, source), (kept, removed) in zip(sources, selected, strict=True):
        if removed:
            notice(
                f"{len(kept)} of {len(source)} problems of {name} are trained on; left out: "
                f"{listed(removed)}"
            )
    refuse_overlap(statements, held_out, data.allow_overlap, notice)
    ids = "\n".join(problem.id for problem in statements)
    return Mixture(shares, hashlib.sha256(ids.encode()).hexdigest()[:16], longest)


def position_of(batches: Batches, mixture: Mixture) -> dict[str, Any]:
    """The position in the stream of these problems, as JSON."""
    return {"problems": mixture.digest, "state": batches.get_state()}


def restore_position(batches: Batches, mixture: Mixture, position: Mapping[str, Any]) -> None:
    """Resume at the position of an earlier run; UserError when it was in other problems."""
    if position.get("problems") != mixture.digest:
        raise UserError(
            "the problems to train on are not those that the run began with: a file of problems or "
            "of grades was changed, so the run cannot resume at its place among them. Restore the "
            "file, or start another run with --run-dir."
        )
    batches.set_state(position["state"])


def refuse_overlap(
    train: Iterable[Problem],
    held_out: Sequence[Problem],
    allowed: bool,
    notice: Notice,
) -> None:
    """Raise UserError when problems to train on are, or are like, some held out for evaluation.

    Where that is `allowed`, `notice` is told how many there are.
    """
    if not held_out or not (found := overlaps(train, held_out)):
        return
    count = len({overlap.train_id for overlap in found})
    what = f"{count} problems to train on are, or are like, problems held out for evaluation"
    if allowed:
        notice(f"{what}; they are used, as data.allow_overlap asks")
        return
    pairs = "; ".join(map(_pair, found[:3]))
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    raise UserError(
        f"{what}, so evaluation would be meaningless: {pairs}{more}. Evaluate on another set with "
        "eval.data, leave these problems out (with data.dates, for example), or pass "
        "--data.allow-overlap to use them anyway."
    )


def _pair(overlap: Overlap) -> str:
    how = {
        "id": "have the same id",
        "text": "have the same text",
        "13-gram": f"share the words {overlap.shared!r}",
    }[overlap.how]
    return f"{overlap.train_id!r} and {overlap.held_out_id!r} {how}"
