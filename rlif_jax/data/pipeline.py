"""Problems in shuffled batches, mixed by weight, forever, from any position: a Grain pipeline."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, cast

import grain
import numpy as np

from rlif_jax.errors import UserError
from rlif_jax.problem import Problem

# Grain's own endless length, sys.maxsize, overflows when it is rounded up to whole batches.
_AS_GOOD_AS_ENDLESS = 2**50


class Source(Protocol):
    """Problems by index, such as a list of problems."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


class Subset:
    """The problems of `source` at `indices`, in that order; the last `keep` read stay in memory."""

    def __init__(self, source: Source, indices: Sequence[int], keep: int = 0):
        self.indices = tuple(indices)
        self._read = functools.lru_cache(keep)(source.__getitem__) if keep else source.__getitem__

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Problem:
        return self._read(self.indices[index])


@dataclass(frozen=True)
class Share:
    """A problem set of a mixture; shares are to one another as their weights."""

    name: str
    source: Source
    weight: float = 1.0


class Mixture:
    """Problem sets that are read together, each as often as its weight asks.

    The weights need not add up to 1. `digest` tells these problems from others, whose prompts have
    at most `longest_prompt` tokens. Raises UserError when there are no shares, when a name comes
    twice, and for a weight that is not a positive number.
    """

    def __init__(self, shares: Sequence[Share], digest: str = "", longest_prompt: int = 0):
        names = [share.name for share in shares]
        if not names:
            raise UserError("A mixture needs at least one problem set.")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(
                f"The mixture names {', '.join(map(repr, repeated))} more than once; give each "
                "problem set one weight."
            )
        if bad := [s for s in shares if not (math.isfinite(s.weight) and s.weight > 0)]:
            raise UserError(
                f"The mixture has {', '.join(f'the weight {s.weight} for {s.name!r}' for s in bad)}"
                "; weights are positive numbers. Leave a problem set out if it is not wanted."
            )
        self.shares = tuple(shares)
        self.digest = digest
        self.longest_prompt = longest_prompt


class _Turns(grain.transforms.DatasetSelectionMap):
    """Whose turn it is at each place of a mixture, and which element of that source it takes.

    Of the first k elements source i has k * weight_i / sum(weights), to within fewer elements than
    there are sources, and exactly where that is a whole number for all of them; its elements come
    in order, without gaps. Grain's own mixing rounds the weights to multiples of a hundredth of the
    smallest; here they are exact, as they are written in decimal.
    """

    def __init__(self, weights: Sequence[float]):
        exact = [Fraction(str(weight)) for weight in weights]
        denominator = math.lcm(*(weight.denominator for weight in exact))
        self._weights = [int(weight * denominator) for weight in exact]

    def __len__(self) -> int:
        return _AS_GOOD_AS_ENDLESS

    def __getitem__(self, place: int) -> tuple[int, int]:
        # Of m elements left to a source of weight w and those behind it, of weight v together,
        # it takes m less floor(m * v / (w + v)): of the first `place` elements, and of one more.
        before, after, total = place, place + 1, sum(self._weights)
        for turn, weight in enumerate(self._weights[:-1]):
            behind = total - weight
            rest_before, rest_after = before * behind // total, after * behind // total
            if rest_before == rest_after:
                return turn, before - rest_before
            before, after, total = rest_before, rest_after, behind
        return len(self._weights) - 1, before


def problem_batches(
    source: Source | Mixture,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    epochs: int | None = None,
) -> grain.DatasetIterator[list[Problem]]:
    """Iterate over lists of `batch_size` problems; `get_state()` and `set_state()` resume it.

    Every epoch is a new permutation of the source that depends only on `seed`, and the epochs
    follow one another without a gap, so a batch may span two of them and each problem comes exactly
    once per epoch. In a mixture that holds for each source, in epochs of its own, whose seeds
    follow from `seed` and the source's place; the sources take turns in a fixed order, by which
    every stretch of the stream has their shares. Of that one stream, process p of `process_count`
    takes elements p, p + process_count, ...: step by step, all processes together read the same
    problems however many they are. `epochs` None never ends; otherwise the last batch may be
    short; the epochs of several sources end at different places, so theirs cannot be counted. The
    state is a small dict that JSON can hold, valid for the same sources.

    The next batch is read by a thread while the caller works on the last. That changes neither
    order nor state, and an error in reading it is raised when its turn comes.

    Raises UserError when a source is empty or an argument is out of range.
    """
    shares = source.shares if isinstance(source, Mixture) else (Share("", source),)
    for share in shares:
        if len(share.source) == 0:
            raise UserError(
                f"There are no problems{f' of {share.name!r}' if share.name else ''} to train on. "
                "If all were dropped for their length, raise data.max_prompt_tokens."
            )
    if batch_size < 1:
        raise UserError(f"A batch must hold at least one problem, not {batch_size}.")
    if epochs is not None and epochs < 1:
        raise UserError(f"A run takes at least one epoch, not {epochs}; None repeats forever.")
    if epochs is not None and len(shares) > 1:
        raise UserError(
            f"A mixture of {len(shares)} problem sets has no common epoch, so epochs={epochs} "
            "cannot be counted; leave epochs at None, or read a single one."
        )
    if seed < 0:
        raise UserError(f"The seed must not be negative, but is {seed}.")
    if not 0 <= process_index < process_count:
        raise UserError(
            f"Process index {process_index} is not among {process_count} processes, which count "
            "from 0."
        )
    dataset = (
        _stream(shares, seed, epochs)
        .slice(slice(process_index, None, process_count))
        .batch(batch_size, batch_fn=list)
    )
    # Batches are Grain's elements here, so the only thread reads the one batch ahead.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    return iter(dataset.to_iter_dataset(options))


def _stream(shares: Sequence[Share], seed: int, epochs: int | None) -> grain.MapDataset:
    """The problems of all shares in the order in which they are read."""
    # Grain shuffles epoch k with seed + k, so runs with neighbouring seeds would share epochs;
    # spread them.
    seeds = np.random.SeedSequence(seed).generate_state(len(shares))
    streams = [
        # Grain's protocol names the argument of __getitem__, which a list does not.
        grain.MapDataset.source(cast(Sequence[Problem], share.source))
        .shuffle(seed=int(shuffle_seed))
        .repeat(_AS_GOOD_AS_ENDLESS // len(share.source) + 1 if epochs is None else epochs)
        for share, shuffle_seed in zip(shares, seeds, strict=True)
    ]
    if len(streams) == 1:
        return streams[0]
    turns = _Turns([share.weight for share in shares])
    return grain.MapDataset.select_from_datasets(streams, turns)
