"""Where each token of a text ends in it, so that the text can be cut without a tokenizer."""

import codecs
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.weights.tokenizer import Ids, byte_of, continuation, without_end

Ends = Callable[[Ids, Ids, str], np.ndarray]
"""Of a prompt's tokens [P], tokens that follow [T] and their text: uint32 [T]."""

_BROKEN = "\ufffd"

_CONTEXT = 256
"""Tokens before a text that decide how it begins, as in `sampler/stop.py`."""


def make_token_ends(tokenizer: Tokenizer, eos_ids: Collection[int]) -> Ends:
    """Build `ends(before, tokens, text)`: the characters of `text` up to and with each token.

    `text` is what `continuation` makes of `tokens` behind `before` less those that `without_end`
    drops, which add nothing. A character belongs to the first token with which the text so far has
    it as the whole text does: one that is split over several tokens to the last of them. So the
    ends never fall, and the last is len(text). The cost is linear in the tokens; the text of each
    id is kept from call to call.
    """
    pieces = _Pieces(tokenizer)

    def ends(before: Ids, tokens: Ids, text: str) -> np.ndarray:
        known, drawn = np.asarray(before).tolist(), np.asarray(tokens).tolist()
        kept = without_end(tokenizer, drawn, eos_ids)
        # A decoder may treat the first token of all as a beginning, which no piece knows.
        found = _by_pieces(pieces, known, kept, text) if known else None
        if found is None:
            found = _by_decoding(tokenizer, known, kept, text)
        return np.array([*found, *[len(text)] * (len(drawn) - len(kept))], np.uint32)

    return ends


class _Pieces(dict[int, str | bytes | int]):
    """What each id stands for, found when it is first asked for.

    That is its text, where this is the same behind any other token; the bytes of one that holds a
    part of a character; the number of a byte token, which a decoder joins with its neighbours.
    """

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self._tokenizer = tokenizer
        self._other = tokenizer("a", add_special_tokens=False).input_ids[-1:]

    def __missing__(self, token: int) -> str | bytes | int:
        name = self._tokenizer.convert_ids_to_tokens(token) or ""
        piece: str | bytes | int | None = byte_of(name)
        if piece is None:
            piece = continuation(self._tokenizer, self._other, [token])
            if _BROKEN in piece:
                letters = name if all(letter in _BYTES for letter in name) else ""
                piece = bytes(_BYTES[letter] for letter in letters) or name.encode()
        self[token] = piece
        return piece


def _bytes_of_letters() -> dict[str, int]:
    """The letters by which byte-level vocabularies write bytes, GPT-2's `bytes_to_unicode`."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    codes = [*printed, *range(256, 256 + len(others))]
    return {chr(code): byte for code, byte in zip(codes, [*printed, *others], strict=True)}


_BYTES = _bytes_of_letters()


def _by_pieces(
    pieces: _Pieces, before: Sequence[int], tokens: Sequence[int], text: str
) -> list[int] | None:
    """The ends, from what each token stands for.

    None where that does not make up the text, and where the prompt ends within a character.
    """
    said, found, at = [], [], 0
    for kind, run in itertools.groupby(map(pieces.__getitem__, tokens), type):
        parts: list[Any] = list(run)
        if kind is str:
            whole = "".join(parts)
            ends = itertools.islice(itertools.accumulate(map(len, parts), initial=at), 1, None)
        elif kind is bytes:
            whole, ends = _characters(parts, text, at)
        else:
            # This run continues the one that the prompt ends with.
            own: Iterable[Any] = map(pieces.__getitem__, () if found else reversed(before))
            lead = bytes([*itertools.takewhile(_is_byte, own)][::-1])
            if _strict(lead) is None:
                return None
            whole, ends = _byte_run(lead, bytes(parts), text, at)
        found += ends
        said.append(whole)
        at += len(whole)
    return found if "".join(said) == text else None


def _characters(parts: Sequence[bytes], text: str, at: int) -> tuple[str, list[int]]:
    """The text of parts of characters, as lossy UTF-8, and where each ends if it begins `at`."""
    decoder, said, ends = codecs.getincrementaldecoder("utf-8")("replace"), "", []
    for part in parts:
        said += decoder.decode(part)
        unfinished = bool(decoder.getstate()[0])
        # Until more is known it reads as broken, which may be how it stays.
        ends.append(at + len(said) + (unfinished and text.startswith(_BROKEN, at + len(said))))
    return said + decoder.decode(b"", final=True), ends


def _is_byte(piece: str | bytes | int) -> bool:
    return isinstance(piece, int)


def _byte_run(lead: bytes, data: bytes, text: str, at: int) -> tuple[str, list[int]]:
    """The text of byte tokens behind `lead`, and where each ends if it begins `at`.

    A wrong byte turns all of a run into replacement characters, one a byte, and what was said of
    `lead` is taken back. A run reads like that as well while its last character is not whole.
    """
    whole = _strict(lead + data)
    said = _BROKEN * len(lead + data) if whole is None else whole[len(lead.decode()) :]
    alike = text[at : at + len(lead + data)]
    broken = len(alike) - len(alike.lstrip(_BROKEN))
    ends, end, characters, first = [], at, 0, 0
    for count in range(1, len(data) + 1):
        part = _strict(data[first:count])
        if part is None:
            end = max(end, at + min(len(lead) + count, broken))
        else:
            characters, first = characters + len(part), count
            end = max(end, at + (characters if whole is not None else 0))
        ends.append(end)
    return said, ends


def _strict(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _by_decoding(
    tokenizer: Tokenizer, before: Sequence[int], tokens: Sequence[int], text: str
) -> list[int]:
    """The ends, by decoding tokens behind the last that was certainly at an end, one more a time.

    For decoders whose pieces are not the same everywhere. It is slow where much is broken.
    """
    known, found, start, at = [*before, *tokens], [], 0, 0
    for end in range(1, len(tokens) + 1):
        first = max(0, len(before) + start - _CONTEXT)
        said = continuation(tokenizer, known[first : len(before) + start], tokens[start:end])
        pairs = zip(said, text[at : at + len(said)], strict=False)
        agreed = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        found.append(max(at + agreed, found[-1] if found else 0))
        if agreed == len(said) and not said.endswith(_BROKEN):
            start, at = end, at + agreed
    return found
