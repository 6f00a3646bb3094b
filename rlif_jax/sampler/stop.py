"""Stop strings: where a text ends because it has said a certain thing."""

from collections.abc import Sequence

import numpy as np

from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.sampler.requests import Stop
from rlif_jax.weights.tokenizer import continuation, decode

_HALF_A_CHARACTER = "\ufffd"

_CONTEXT = 256
"""Tokens before a text that decide how it begins: a run of byte tokens is decoded as one."""


def make_stop(tokenizer: Tokenizer, stops: Sequence[str]) -> Stop:
    """Build `stop(prompt, tokens, seen) -> int | None`: the tokens to keep when it is time to stop.

    They are the fewest of `tokens` whose text, as it follows the prompt's, has one of the stop
    strings, wherever tokens begin and end in it. The first `seen` are known to have none; they are
    decoded again only as far back as a stop string can begin.
    """
    # A character that is not whole may be written as up to three replacements, at either end.
    reach = 6 + max(map(len, stops))

    def stop(prompt: Sequence[int], tokens: np.ndarray, seen: int) -> int | None:
        def text(first: int, end: int) -> str:
            before = tokens[:first]
            if first < _CONTEXT:
                before = [*prompt[-_CONTEXT:], *before]
            return continuation(tokenizer, before, tokens[first:end])

        first, back = max(0, seen - reach), 2 * reach
        while first and len(decode(tokenizer, tokens[first:seen])) < reach:
            first, back = max(0, seen - back), 2 * back  # there may be tokens without a text
        said = text(first, len(tokens))
        # Decoders may take a text back while a character is not whole.
        if _HALF_A_CHARACTER not in said and not _says(said, stops):
            return None
        ends = range(seen + 1, len(tokens) + 1)
        return next((end for end in ends if _says(text(first, end), stops)), None)

    return stop


def _says(text: str, stops: Sequence[str]) -> bool:
    return any(word in text for word in stops)


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    places = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(places)] if places else text
