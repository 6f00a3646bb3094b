"""What the package asks of a tokenizer, as a type."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Protocol


class Encoding(Protocol):
    """The result of calling a tokenizer on one text."""

    @property
    def input_ids(self) -> Sequence[int]: ...


class Tokenizer(Protocol):
    """The part of transformers' tokenizers that the package uses.

    `weights.tokenizer.read_tokenizer` gives one, with its end-of-sequence and padding tokens set.
    """

    @property
    def name_or_path(self) -> str: ...

    @property
    def eos_token_id(self) -> int: ...

    @property
    def pad_token_id(self) -> int: ...

    @property
    def unk_token_id(self) -> int | None: ...

    def __call__(self, text: str, *, add_special_tokens: bool) -> Encoding: ...

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str: ...

    def convert_tokens_to_ids(self, token: str, /) -> int | None: ...

    def convert_ids_to_tokens(self, i: int, /) -> str | None: ...

    def get_vocab(self) -> Mapping[str, int]: ...

    def get_chat_template(self) -> str: ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        /,
        *,
        chat_template: str,
        add_generation_prompt: bool,
        tokenize: bool,
        **variables: Any,
    ) -> str: ...

    def save_pretrained(self, folder: str | PathLike[str], /) -> object: ...
