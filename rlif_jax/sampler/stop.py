"""Stop strings: where a text ends because it has said a certain thing."""

from collections.abc import Sequence

import numpy as np

from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.sampler.requests import Stop
from rlif_jax.weights.tokenizer import continuation

_HALF_A_CHARACTER = "\ufffd"


def make_stop(tokenizer: Tokenizer, stops: Sequence[str]) -> Stop:
    """Build `stop(prompt, tokens, seen) -> int | None`: the tokens to keep when it is time to stop.

    They are the fewest of `tokens` whose text, as it follows the prompt's, has one of the stop
    strings, wherever tokens begin and end in it. The first `seen` are known to have none; they are
    decoded again only as far back as a stop string can begin.
    """
    # A character that is not whole yet may be written as up to three replacements.
    reach = 3 + max(map(len, stops))

    def stop(prompt: Sequence[int], tokens: np.ndarray, seen: int) -> int | None:
        all_tokens = np.concatenate([np.asarray(prompt, np.int32), tokens])

        def text(first: int, end: int) -> str:
            before, added = np.split(all_tokens[: len(prompt) + end], [len(prompt) + first])
            return continuation(tokenizer, before.tolist(), added.tolist())

        first, back = seen, reach
        while first and len(text(first, seen)) < reach:  # there may be tokens without a text
            first, back = max(0, seen - back), 2 * back

        def says_it(end: int) -> bool:
            said = text(first, end)
            return any(word in said for word in stops)

        # Decoders may take a text back while a character is not whole.
        if _HALF_A_CHARACTER not in text(first, len(tokens)) and not says_it(len(tokens)):
            return None
        return next(filter(says_it, range(seen + 1, len(tokens) + 1)), None)

    return stop


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    places = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(places)] if places else text
