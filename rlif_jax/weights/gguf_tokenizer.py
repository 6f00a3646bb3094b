"""The tokenizer and chat template of a GGUF file, as a transformers fast tokenizer.

Built from the file's vocabulary and merges with the `tokenizers` library: byte-level BPE, whose
only other choice is how text is cut before merging, named by `tokenizer.ggml.pre`. The cuts are
those of the models' published tokenizers (llama.cpp's src/llama-vocab.cpp lists the patterns).
"""

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from rlif_jax.errors import UserError
from rlif_jax.weights.gguf_header import metadata

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(number: str) -> pre_tokenizers.PreTokenizer:
    """The word pattern of Llama 3 and Qwen2, which differ in how many digits stay together."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS % number), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _pre_tokenizer(pre: str, path: str | Path) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    match pre:
        case "smollm":
            digits = pre_tokenizers.Digits(individual_digits=True)
            return pre_tokenizers.Sequence([digits, byte_level])
        case "qwen2" | "deepseek-r1-qwen":
            return _split(r"\p{N}")
        case "llama-bpe":
            return _split(r"\p{N}{1,3}")
        case "gpt-2" | "default":
            return byte_level
    raise UserError(
        f"model file {path} has tokenizer.ggml.pre {pre!r}; supported are smollm, qwen2, "
        "deepseek-r1-qwen, llama-bpe, gpt-2 and default"
    )


def _fast_tokenizer() -> "type[PreTrainedTokenizerFast]":
    """The class of transformers, imported without its notice that PyTorch is missing."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast


def read_gguf_tokenizer(reader: GGUFReader, path: str | Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of an opened GGUF file, with its chat template and special tokens.

    Raises UserError for a vocabulary that is missing, inconsistent or not byte-level BPE.
    """
    kind = metadata(reader, "tokenizer.ggml.model")
    if kind != "gpt2":
        raise UserError(
            f"model file {path} has tokenizer.ggml.model {kind!r}; only gpt2, which is byte-level "
            "BPE, is supported"
        )
    tokens = metadata(reader, "tokenizer.ggml.tokens")
    merges = metadata(reader, "tokenizer.ggml.merges")
    if not tokens or merges is None:
        raise UserError(f"model file {path} lacks tokenizer.ggml.tokens or tokenizer.ggml.merges")
    twice = next((token for token, n in Counter(tokens).items() if n > 1), None)
    if twice is not None:
        raise UserError(f"model file {path} lists token {twice!r} twice; its vocabulary is damaged")
    pre = metadata(reader, "tokenizer.ggml.pre", "default")
    cut = _pre_tokenizer(pre, path)
    try:
        model = models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ", 1)) for merge in merges],
            ignore_merges=pre == "llama-bpe",
        )
    except Exception as error:  # the Rust library raises Exception itself
        raise UserError(f"model file {path} has inconsistent tokenizer merges: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    if pre in ("qwen2", "deepseek-r1-qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens(_added_tokens(reader, tokens))
    special = _special_tokens(reader, tokens, path)
    if metadata(reader, "tokenizer.ggml.add_bos_token", pre == "llama-bpe"):
        _prepend_bos(tokenizer, special, path)
    return _fast_tokenizer()(
        tokenizer_object=tokenizer,
        chat_template=metadata(reader, "tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **special,
    )


def _added_tokens(reader: GGUFReader, tokens: list[str]) -> list[AddedToken]:
    """Control tokens (special) and user-defined tokens, neither of which is ever split."""
    kinds = metadata(reader, "tokenizer.ggml.token_type", [])
    return [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, kinds, strict=False)
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def _special_tokens(reader: GGUFReader, tokens: list[str], path: str | Path) -> dict[str, str]:
    """bos, eos, pad and unk tokens; pad falls back to eos, which never matters under the masks."""
    special = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        index = metadata(reader, f"tokenizer.ggml.{key}_token_id")
        if index is None:
            continue
        if not 0 <= index < len(tokens):
            raise UserError(
                f"model file {path} has tokenizer.ggml.{key}_token_id {index}, outside its "
                f"{len(tokens)} tokens"
            )
        special[f"{name}_token"] = tokens[index]
    if "eos_token" not in special:
        raise UserError(
            f"model file {path} lacks tokenizer.ggml.eos_token_id, so sampling would never stop; "
            "choose another file"
        )
    special.setdefault("pad_token", special["eos_token"])
    return special


def _prepend_bos(tokenizer: Tokenizer, special: dict[str, str], path: str | Path) -> None:
    bos = special.get("bos_token")
    if bos is None:
        raise UserError(f"model file {path} asks for a bos token but does not name one")
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B:1",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
