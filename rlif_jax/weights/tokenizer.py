"""The tokenizer of a model folder, and what a model needs of any tokenizer."""

import json
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.errors import UserError
from rlif_jax.model.config import ModelConfig

Ids = Sequence[int] | np.ndarray

# Embedding rows beyond the tokenizer's ids count as padding up to this number or share of all.
# Qwen2.5-Coder-7B has 399 of 152,064, deepseek-llm-7b 2,385 of 102,400.
_MOST_PADDING, _MOST_PADDING_SHARE = 1024, 1 / 32

# Decoders treat a text's first token unlike the following ones, and join the bytes of a character,
# at most four. Byte tokens named like this are decoded as one run of any length: one wrong byte
# turns all of them into replacement characters.
_CONTEXT = 8
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def read_tokenizer(folder: Path) -> Tokenizer:
    """The transformers tokenizer of a local folder, its padding token set.

    A tokenizer.json is used unchanged: AutoTokenizer may build another one by the class that
    tokenizer_config.json names, which for distilled models is often that of another family. Code in
    the folder is never run.

    Raises:
        UserError: there is no tokenizer, or its files are damaged.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is missing
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    whole = (folder / "tokenizer.json").is_file()
    kind = PreTrainedTokenizerFast if whole else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        tokenizer.encode("a")  # settings that do not fit it are found only when it is used
    except Exception as error:  # the Rust library raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the tokenizer in {folder} cannot be read ({type(error).__name__}: {reason}); fetch "
            "tokenizer.json and tokenizer_config.json of the model"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer in {folder} has no end-of-sequence token, so sampling would never "
            "stop; name one as eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:  # never matters under the masks
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def decode(tokenizer: Tokenizer, tokens: Ids) -> str:
    """The text of these ids [T], character by character: the package decodes all text here.

    Special tokens are written out, since thinking tags may be special tokens, and programs may hold
    any of them. The clean-up of spaces, which a tokenizer's files may ask for, rewrites programs
    (`' , '.join`), so it is off.
    """
    return tokenizer.decode(
        list(map(int, tokens)), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def byte_of(name: str | None) -> int | None:
    """The byte of a byte token, by its name; None for any other token."""
    byte = _BYTE.fullmatch(name or "")
    return None if byte is None else int(byte[1], 16)


def continuation(tokenizer: Tokenizer, before: Ids, tokens: Ids) -> str:
    """The text that `tokens` [T] add to that of `before` [P]: both together are the whole text.

    A decoder may treat the first token of a text as a beginning, for instance take the space from
    it, so a completion is never decoded alone. Where `before` ends within a character, the whole
    character belongs to the continuation.
    """
    start = max(0, len(before) - _CONTEXT)
    while start and byte_of(tokenizer.convert_ids_to_tokens(int(before[start]))) is not None:
        start -= 1
    text = decode(tokenizer, [*before[start:], *tokens])
    begun = decode(tokenizer, before[start:])
    while not text.startswith(begun):
        begun = begun[:-1]
    return text[len(begun) :]


def tokens_of(
    tokenizer: Tokenizer, before: Ids, tokens: Ids, where: tuple[int, int] | None
) -> tuple[int, int]:
    """Which `tokens` [first, end) hold the characters `where` [start, end) of their text.

    Their text is that of `continuation`. A token that holds one of the characters is among them;
    (0, 0) for None.
    """
    if where is None:
        return 0, 0
    start, end = where

    def length(count: int) -> int:
        return len(continuation(tokenizer, before, tokens[:count]))

    counts = range(len(tokens) + 1)
    first = max(bisect_right(counts, start, key=length) - 1, 0)
    return first, max(first, bisect_left(counts, end, key=length))


def without_end(
    tokenizer: Tokenizer, tokens: Sequence[int], eos_ids: Collection[int]
) -> Sequence[int]:
    """`tokens` [T] without the end-of-sequence and padding tokens that they end with.

    `eos_ids` are the model's; those of the tokenizer are added.
    """
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id, *eos_ids}
    length = len(tokens)
    while length and int(tokens[length - 1]) in ends:
        length -= 1
    return tokens[:length]


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, in the form that transformers 4 reads, too."""
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config = {
        k: v for k, v in config.items() if k not in ("backend", "is_local", "local_files_only")
    }
    path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2))


def reachable_ids(tokenizer: Tokenizer, cfg: ModelConfig, location: str) -> int:
    """One more than the tokenizer's largest id; at most the number of embedding rows.

    Raises:
        UserError: ids beyond the embedding, or too few ids for a tokenizer of this model.
    """
    ids = 1 + max(tokenizer.get_vocab().values())
    if ids > cfg.vocab_size:
        raise UserError(
            f"the tokenizer of {location} has ids up to {ids - 1}, but the embedding has only "
            f"{cfg.vocab_size} rows; it belongs to another model, or tokens were added without "
            "resizing the embedding"
        )
    padding = max(_MOST_PADDING, _MOST_PADDING_SHARE * cfg.vocab_size)
    if cfg.vocab_size - ids > padding:
        raise UserError(
            f"the tokenizer of {location} has {ids} ids and the embedding {cfg.vocab_size} rows; "
            "such a difference is not padding: the tokenizer belongs to another model"
        )
    outside = [i for i in cfg.eos_ids if i >= ids]
    if outside:
        raise UserError(
            f"eos_token_id {outside[0]} of {location} is not among its tokenizer's {ids} ids; "
            "correct generation_config.json or config.json"
        )
    return ids
