"""The lines of JSONL files, compressed or not, each with its place for messages."""

import codecs
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlif_jax.errors import UserError
from rlif_jax.judgeable import long_integers
from rlif_jax.storage.compressed import decompressor, open_lines


def read_rows(path: Path, content: str = "problems") -> Iterator[tuple[str, Any]]:
    """Yield (place, row) for each line of a JSONL file; messages use the place, its file and line.

    Lines of white space are skipped. Raises UserError when the file cannot be read or a line is not
    JSON.
    """
    for where, _, line in read_lines(path, content):
        yield where, parse_line(line, where)


def read_lines(path: Path, content: str) -> Iterator[tuple[str, int, bytes]]:
    """Yield (place, byte offset, line) for each line of a file that is not white space.

    The file may be compressed (`compressed.open_lines`); offsets count decompressed bytes.

    Raises UserError when the file, called by the name of its `content`, cannot be read, and when it
    is one JSON array, recognised by its first character.
    """
    offset, begun = 0, False
    try:
        with open_lines(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    if not begun and line.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
                        raise UserError(_one_array(path))
                    begun = True
                    yield f"{path} line {number}", offset, line
                offset += len(line)
    except OSError as error:
        raise UserError(
            f"Cannot read the {content} in {path}: {error.strerror}. Check the path and its "
            "permissions."
        ) from error


def _one_array(path: Path) -> str:
    target = shlex.quote(str(path.with_name(f"{path.name.split('.')[0]}_rows.jsonl")))
    unpacked = decompressor(path)
    before, after = (f"{unpacked} | ", "") if unpacked else ("", f"< {shlex.quote(str(path))} ")
    return (
        f"{path} begins with '[': it is one JSON array, not a row in each line. Write each of its "
        f'rows in a line of its own and name the new file: {before}python -c "import json, sys; '
        f'[print(json.dumps(row)) for row in json.load(sys.stdin.buffer)]" {after}> {target}'
    )


def parse_line(line: bytes, where: str) -> Any:
    """The JSON value of one line; UserError when it is not JSON."""
    try:
        with long_integers():
            return json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where}: not a JSON object in UTF-8 ({error}); each line must hold one row."
        ) from error
