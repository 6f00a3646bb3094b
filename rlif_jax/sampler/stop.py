"""Stop strings: where a text ends because it has said a certain thing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlif_jax.sampler.requests import Stop


def make_stop(tokenizer: Any, stops: Sequence[str]) -> Stop:
    """Build `stop(tokens, seen) -> int | None`: the tokens to keep once a stop string is complete.

    The last of them completes the first stop string, wherever tokens begin and end in it. Special
    tokens have no text, except for a stop string that has one in it. Only the tokens after the
    first `seen` are searched, and those before that a stop string can begin in.
    """
    special = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    plain = [word for word in stops if not any(token in word for token in special.values())]
    marked = [word for word in stops if word not in plain]
    # A token with a text has at least one byte of it. One more, for a decoder may strip the space
    # that a text begins with.
    reach = 1 + max(len(word.encode()) for word in stops)

    def says_it(tokens: np.ndarray) -> bool:
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if any(word in text for word in plain):
            return True
        text = tokenizer.decode(tokens, skip_special_tokens=False) if marked else ""
        return any(word in text for word in marked)

    def stop(tokens: np.ndarray, seen: int) -> int | None:
        with_text = np.flatnonzero(~np.isin(tokens[:seen], list(special)))
        first = with_text[-reach] if len(with_text) >= reach else 0
        if not says_it(tokens[first:]):
            return None
        short, enough = seen, len(tokens)  # up to `short` tokens there is none, with `enough` is
        while enough - short > 1:
            middle = (short + enough) // 2
            short, enough = (short, middle) if says_it(tokens[first:middle]) else (middle, enough)
        return enough

    return stop


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    places = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(places)] if places else text
