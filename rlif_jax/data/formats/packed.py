"""The text that LiveCodeBench packs its private tests in: base64(zlib(pickle(text)))."""

import base64
import pickletools
import zlib

from rlif_jax.errors import UserError

LARGEST_BYTES = 1 << 30
"""What one field may unpack to; a few bytes of zlib data could fill any memory."""

_TEXT_OPCODES = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_IDLE_OPCODES = ("PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP")


def unpack(text: str, field: str, where: str) -> str:
    """The text in a packed one; nothing of it is executed or imported.

    Raises UserError, with `where`, the `field` and the remedy, for what is not base64 of zlib data,
    unpacks to more than `LARGEST_BYTES`, or is not a pickle of one text.
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b64decode(text, validate=True), LARGEST_BYTES + 1)
        if len(data) <= LARGEST_BYTES and not stream.eof:
            raise ValueError("its end is missing")
    except (ValueError, zlib.error) as error:
        raise UserError(
            f"{where}: field {field} is neither JSON nor base64 of zlib data ({error}); it starts "
            f"with {text[:40]!r}."
        ) from error
    if len(data) > LARGEST_BYTES:
        raise UserError(
            f"{where}: field {field} has {len(text)} characters that unpack to more than "
            f"{LARGEST_BYTES} bytes; split the row's tests, or remove the row."
        )
    try:
        return _pickled_text(data)
    except ValueError as error:
        raise UserError(
            f"{where}: field {field} holds a pickle that is refused: {error}. Only the pickle of "
            "one text is opened, because others can run code; store the tests as plain JSON."
        ) from error


def _pickled_text(data: bytes) -> str:
    """The str in a pickle of one str, read off its opcodes.

    Raises ValueError for any other pickle, naming the opcode that is not allowed.
    """
    texts = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _TEXT_OPCODES:
            texts.append(argument)
        elif opcode.name not in _IDLE_OPCODES:
            raise ValueError(f"it is not a text (opcode {opcode.name})")
    if len(texts) != 1:
        raise ValueError(f"it holds {len(texts)} texts instead of one")
    return texts[0]
