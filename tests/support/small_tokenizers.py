"""Tokenizers small enough to check by eye."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from support import GOLDENS

FAMILIES = json.loads((GOLDENS / "chat_templates.json").read_text())["families"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte; it puts <bos> before every text, and its chat template does so, too."""
    special = ["<bos>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(special + alphabet)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<|end|>", pad_token="<|end|>"
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def family_tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """For each model family a tokenizer with its special tokens, its chat template and its BOS.

    The id of a byte is the byte itself; the family's tokens follow from 256 on.
    """
    return {name: _family_tokenizer(name, **family) for name, family in FAMILIES.items()}


def _family_tokenizer(
    name: str, *, source, template, special_tokens, plain_tokens, bos, eos, tokenizer_adds_bos
) -> PreTrainedTokenizerFast:
    vocab = {character: byte for byte, character in bytes_to_unicode().items()}
    tokens = special_tokens + plain_tokens
    core = Tokenizer(
        models.BPE(vocab=vocab | {t: 256 + i for i, t in enumerate(tokens)}, merges=[])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in special_tokens])
    core.add_tokens([AddedToken(token, normalized=False) for token in plain_tokens])
    if tokenizer_adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=bos, eos_token=eos, pad_token=eos, name_or_path=name
    )
    wrapped.chat_template = "".join(template)
    return wrapped
