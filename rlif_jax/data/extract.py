"""The program in a model's answer."""

import re

THINK, THINK_END = "<think>", "</think>"

_OPENING = re.compile(r"( {0,3})(`{3,}(?=[^`]*$)|~{3,})")
_CLOSING = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")


def extract_code(completion: str, thinking_open: bool = False) -> str | None:
    """The last complete fenced block of the answer, without its fences; None when there is none.

    The answer is what follows the last `</think>`; a `<think>` left open means that there is no
    answer yet. `thinking_open` says that the prompt ended in a `<think>`, so that the completion
    starts inside the thinking and no part of it is an answer before `</think>`. Fences are
    CommonMark's (section 4.5): three or more backticks or tildes, indented by at most three spaces,
    closed by at least as many of the same character; the label is ignored and the fence's
    indentation is taken off the block. A last block that never closes gives None rather than an
    earlier block, since the answer was cut off; so does a block of white space. Code without fences
    is not guessed at.
    """
    judged = f"{THINK}{completion}" if thinking_open else completion
    answer = judged.rpartition(THINK_END)[2]
    if THINK in answer:
        return None
    code = None
    block: list[str] | None = None  # lines of the open block
    fence, indent = "", 0
    for raw in answer.split("\n"):
        line = raw.removesuffix("\r")
        if block is None:
            if opening := _OPENING.match(line):
                indent, fence, block = len(opening[1]), opening[2], []
        elif (closing := _CLOSING.fullmatch(line)) and closing[1].startswith(fence):
            code, block = "\n".join(block), None
        else:
            block.append(_dedent(line, indent))
    if block is not None or code is None or not code.strip():
        return None
    return code


def _dedent(line: str, width: int) -> str:
    """`line` without its first `width` spaces, or as many as it has."""
    spaces = len(line) - len(line.lstrip(" "))
    return line[min(width, spaces) :]
