"""Rows in which sequences stand side by side, and arrays for attention over them."""

import jax.numpy as jnp
import numpy as np

from rlif_jax.kernels.attention.segments import Segments


def segments_of(rows: list[list[int]], T: int, shared: bool | None = None) -> Segments:
    """The segments of rows of T columns, given the lengths of the sequences of each row.

    Length 0 is an empty column; a negative one is that of a completion which continues the last
    sequence of positive length, if there is one. What does not fit is cut off. `shared` says
    whether the segments have prefixes: by default if any length is negative.
    """
    own, prefix = np.zeros((2, len(rows), T), np.int32)
    for r, row in enumerate(rows):
        start, prompt = 0, 0
        for number, length in enumerate(row, 1):
            stop = start + max(abs(length), 1)
            if length > 0:
                prompt = number
            if length != 0:
                own[r, start:stop] = number
                prefix[r, start:stop] = prompt or number
            start = stop
    if shared is None:
        shared = any(length < 0 for row in rows for length in row)
    return Segments(jnp.asarray(own), jnp.asarray(prefix) if shared else None)


def attention_arrays(R: int, T: int, H: int, K: int, A: int, seed: int = 0):
    """Random queries, keys, values and weights of what is read, float32."""
    rng = np.random.default_rng(seed)
    return [jnp.float32(rng.normal(size=(R, T, heads, A))) for heads in (H, K, K, H)]
