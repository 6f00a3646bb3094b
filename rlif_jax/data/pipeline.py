"""Problems in shuffled batches, forever, from any position: a Grain pipeline."""

from collections.abc import Callable, Sequence
from typing import Protocol

import grain
import numpy as np

from rlif_jax.data.errata import is_erratum
from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

# Grain's own endless length, sys.maxsize, overflows when it is rounded up to whole batches.
_AS_GOOD_AS_ENDLESS = 2**50


class Source(Protocol):
    """Problems by index; a list of problems is one, too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


class Subset:
    """The problems of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self._source = source
        self._indices = tuple(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Problem:
        return self._source[self._indices[index]]


def of_difficulty(source: Source, difficulties: Sequence[str]) -> Subset:
    """The problems whose `difficulty` is one of these, in order; all of them when none is given.

    Raises UserError naming a difficulty that no problem of the source has.
    """
    found = [source[i].metadata.get("difficulty", "") for i in range(len(source))]
    for wanted in difficulties:
        if wanted not in found:
            raise UserError(
                f"No problem has the difficulty {wanted!r} that data.difficulties asks for; "
                f"there are {', '.join(sorted(set(found)))}."
            )
    kept = [
        i for i, difficulty in enumerate(found) if not difficulties or difficulty in difficulties
    ]
    return Subset(source, kept)


def fitting(
    source: Source, encode: Callable[[Problem], Sequence[int]], max_tokens: int
) -> tuple[Subset, int]:
    """The problems whose prompt has at most `max_tokens` tokens, and the number of the others."""
    kept = [i for i in range(len(source)) if len(encode(source[i])) <= max_tokens]
    return Subset(source, kept), len(source) - len(kept)


def without_errata(source: Source) -> tuple[Subset, int]:
    """The problems that are not in LiveCodeBench's errata, and the number of the others."""
    kept = [i for i in range(len(source)) if not is_erratum(source[i])]
    return Subset(source, kept), len(source) - len(kept)


def problem_batches(
    source: Source,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    epochs: int | None = None,
) -> grain.DatasetIterator[list[Problem]]:
    """Iterate over lists of `batch_size` problems; `get_state()` and `set_state()` resume it.

    Every epoch is a new permutation of the source that depends only on `seed`, and the epochs
    follow one another without a gap, so a batch may span two of them and each problem comes exactly
    once per epoch. Of that one stream, process p of `process_count` takes elements p, p +
    process_count, ...: step by step, all processes together read the same problems however many
    they are. `epochs` None never ends; otherwise the last batch may be short. The state is a small
    dict that JSON can hold.

    Raises UserError when the source is empty or an argument is out of range.
    """
    if len(source) == 0:
        raise UserError(
            "There are no problems to train on. If all were dropped for their length, raise "
            "data.max_prompt_tokens."
        )
    if batch_size < 1:
        raise UserError(f"A batch must hold at least one problem, not {batch_size}.")
    if epochs is not None and epochs < 1:
        raise UserError(f"A run takes at least one epoch, not {epochs}; None goes on forever.")
    if seed < 0:
        raise UserError(f"The seed must not be negative, and {seed} is.")
    if not 0 <= process_index < process_count:
        raise UserError(
            f"Process index {process_index} is not among {process_count} processes, which count "
            "from 0."
        )
    # Grain shuffles epoch k with seed + k, so runs with neighbouring seeds would share epochs;
    # spread them.
    shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    dataset = (
        grain.MapDataset.source(source)
        .shuffle(seed=shuffle_seed)
        .repeat(_AS_GOOD_AS_ENDLESS // len(source) + 1 if epochs is None else epochs)
        .slice(slice(process_index, None, process_count))
        .batch(batch_size, batch_fn=list)
    )
    # Rows are small and local: reading ahead in threads would only contend with the step for the
    # interpreter.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(dataset.to_iter_dataset(options))
