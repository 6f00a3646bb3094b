"""Small tokenizers of each kind of decoder, none with more ids than the very small model."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<s>", "</s>", "<think>", "</think>", "<|fim_prefix|>")
LETTERS = [chr(code) for code in range(33, 127)]


def wrapped(core: Tokenizer, **settings) -> PreTrainedTokenizerFast:
    core.add_special_tokens(list(SPECIAL))
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **ends, **settings)


def byte_level(**settings) -> PreTrainedTokenizerFast:
    """GPT-2's kind, of single bytes: Llama 3's, Qwen's and DeepSeek's."""
    vocab = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return wrapped(core, **settings)


def byte_fallback(**settings) -> PreTrainedTokenizerFast:
    """Llama 2's kind: its decoder takes the first space, and decodes runs of byte tokens as one."""
    pieces = [*SPECIAL, "\u2581", *LETTERS, "\u2581a", "in"]
    pieces += [f"<0x{byte:02X}>" for byte in (10, *range(128, 256))]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(
        models.BPE(vocab=vocab, merges=[("\u2581", "a"), ("i", "n")], byte_fallback=True)
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return wrapped(core, **settings)


def metaspace(**settings) -> PreTrainedTokenizerFast:
    """T5's kind: words that begin with their space, which the first one loses."""
    pieces = ["<unk>", *SPECIAL, "\u2581", *LETTERS, "\u2581a", "\u2581b", "in"]
    core = Tokenizer(models.Unigram([(piece, -float(len(pieces))) for piece in pieces], unk_id=0))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return wrapped(core, **settings)


def word_piece(**settings) -> PreTrainedTokenizerFast:
    """BERT's kind: a space before each token but the first and those with ##."""
    pieces = ["[UNK]", *SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    core = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return wrapped(core, **settings)


KINDS = {
    "byte level": byte_level,
    "byte fallback": byte_fallback,
    "metaspace": metaspace,
    "word piece": word_piece,
}
