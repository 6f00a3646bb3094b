"""What is asked of the sampler, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlif_jax.batch import TokenStats

Stop = Callable[[Sequence[int], np.ndarray, int], int | None]
"""`stop(prompt, tokens, seen)`: how many of a completion's tokens to keep if it is to stop.

None lets it continue. `seen` of them were there at the call before.
"""


@dataclass(frozen=True)
class Request:
    """One sample to draw: of which prompt, from which key, and at most how many tokens.

    `key` is the data of a PRNG key, uint32 [2]; see `draw.key_data`.
    """

    prompt: int
    key: np.ndarray
    limit: int


@dataclass(frozen=True)
class Finished:
    """A finished sample: the index of its request, its tokens int32 [n], and their statistics.

    `truncated`: it ended at its limit, without an end-of-sequence token or a stop.
    """

    request: int
    tokens: np.ndarray
    stats: TokenStats | None
    truncated: bool
