"""The program in a model's answer: its last fenced block, without the fences.

1.  The answer follows the thought, which ends at `</think>`; a thought that is still open has no
    answer. Outside of blocks `<think>` opens another thought, but an unclosed one amid a line of
    prose, with no fence after it, is an ordinary word. Tags in quotes are ordinary words, and tags
    inside a block are part of the program.
2.  A block opens on a line that starts with three or more backticks or tildes, after any blanks,
    list markers and quote markers. It also opens on a line of prose that ends with backticks and at
    most a label: `<answer>```python`.
3.  It closes on a line that starts with at least as many of the same character, indented by at most
    three columns more than the opening, if nothing follows or what follows cannot be a label:
    "```</answer>". If a blank and text follow, the line closes the block only when no bare fence
    comes later. If a label follows directly, the line opens a new block instead.
4.  The indentation of the fences (of the deeper one) is removed from the block, up to that of its
    first line, and so are the quote markers of the opening line.
5.  If the last block never closes, the answer was cut off, and there is no program rather than an
    earlier block; only unlabelled backticks at the end of a line of prose may stay open. A blank
    last block is no program either. Code without fences is not guessed at.

For fences on lines of their own this is CommonMark 0.31 (sections 4.5, 5.1 and 5.2) without its
limit of three columns of indentation. For fences that share their line it is LiveCodeBench's
official rule: what stands between the last two lines with three backticks.
"""

import re
from dataclasses import dataclass, field

THINK, THINK_END = "<think>", "</think>"

_NOT_IN_QUOTES = r"(?:(?<![`'\"]){0}|(?<=```){0}|{0}(?![`'\"])|{0}(?=```))"
_THOUGHT, _THOUGHT_END = (re.compile(_NOT_IN_QUOTES.format(tag)) for tag in (THINK, THINK_END))
_MARKS = re.compile(r"(?:[ \t]|>|(?:[-+*]|\d{1,9}[.)])(?=[ \t]))*")
_FENCE = re.compile(r"(`{3,}|~{3,})(.*)")
_FENCE_AT_THE_END = re.compile(r"(?<!`)(`{3,}+)([\w+#.-]*+)[ \t]*$")
_FENCE_ALONE = re.compile(r"^[ \t>]*(?:`{3,}|~{3,})[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """The program of a completion, and where its block lies there: `completion[start:end]`.

    `text` is that without indentation and quote marks of the fences.
    """

    text: str
    start: int
    end: int


def extract_code(completion: str, thinking_open: bool = False) -> str | None:
    """The program of a completion by the rule above, or None; see `find_code`."""
    found = find_code(completion, thinking_open)
    return None if found is None else found.text


def find_code(completion: str, thinking_open: bool = False) -> Found | None:
    """The program of a completion by the rule above, or None.

    `thinking_open` says that the prompt ended in a `<think>`, so that the completion starts inside
    the thought. The thought ends at the last `</think>`, or at the first if no program follows the
    last, since a program may print the tag. A completion without `<think>` at its start may have
    been prompted with one; if no program follows its `</think>`, the tag is an ordinary word.
    """
    ends = [tag.end() for tag in _THOUGHT_END.finditer(completion)]
    for end in dict.fromkeys([*ends[-1:], *ends[:1]]):
        if (code := _last_block(completion[end:])) is not None:
            return Found(code.text, end + code.start, end + code.end)
    if thinking_open or completion.lstrip().startswith(THINK):
        return None
    return _last_block(completion)


def find_thought(completion: str, thinking_open: bool = False) -> tuple[int, int] | None:
    """Where a completion thinks: from its start, or its `<think>`, to the last `</think>`.

    A thought that is still open is the rest. None: it does not think.
    """
    begins = completion.lstrip().startswith(THINK)
    ends = [tag.start() for tag in _THOUGHT_END.finditer(completion)]
    if not (begins or thinking_open or ends):
        return None
    start = completion.index(THINK) + len(THINK) if begins else 0
    return start, ends[-1] if ends else len(completion)


@dataclass
class _Block:
    """An open block: its fence, the fence's indentation in columns, and its depth in quotes.

    `sure` is false for a fence at the end of a line of prose, which may only mention backticks;
    `start` is where the line after the fence begins.
    """

    fence: str
    indent: int
    quotes: int
    sure: bool
    labelled: bool
    start: int = 0
    lines: list[str] = field(default_factory=list)

    def inside(self, line: str) -> str:
        """The line without the marks of the quote that the block is in."""
        return re.sub(rf"^(?:[ \t]*> ?){{0,{self.quotes}}}", "", line)

    def fence_in(self, line: str) -> tuple[int, str] | None:
        """Of a line that starts with such a fence: its indent and what follows; None for others."""
        bare = self.inside(line).lstrip(" \t")
        indent = _indent(self.inside(line))
        found = _FENCE.match(bare)
        if not found or not found[1].startswith(self.fence):
            return None
        return None if self.sure and indent > self.indent + 3 else (indent, found[2])

    def code(self, closing_indent: int) -> str:
        """The block without the indentation of its fences."""
        first = next((line for line in self.lines if line.strip()), "")
        width = min(max(self.indent, closing_indent), _indent(first))
        return "\n".join(_dedent(line, width) for line in self.lines)


def _last_block(answer: str) -> Found | None:
    """The last block of a text that begins outside of thoughts; None where it was cut off."""
    code: Found | None = None
    block: _Block | None = None
    alone = max((fence.start() for fence in _FENCE_ALONE.finditer(answer)), default=-1)
    at = 0
    while at <= len(answer):
        start, end = at, answer.find("\n", at)
        at = (len(answer) if end < 0 else end) + 1
        line = answer[start : at - 1].removesuffix("\r")
        if block and (found := block.fence_in(line)):
            indent, rest = found
            if _closes(rest, alone >= at):
                code = Found(block.code(indent), block.start, max(block.start, start))
                block = _opening_at_the_end(rest, at)
                continue
            if re.match(r"[\w{]", rest) and "`" not in rest:
                block = _opening(line, at)
                continue
        if block is None or not block.sure:
            thought = _THOUGHT.search(line)
            begins = thought is not None and not line[: thought.start()].strip()
            if thought and (begins or block is None):
                block, thinking = None, start + thought.end()
                if closing := _THOUGHT_END.search(answer, thinking):
                    at = closing.end()
                    continue
                if begins or re.search("```|~~~", answer[thinking:]):
                    return None
                break  # an ordinary word
            opening = _opening(line, at)
            if opening and (block is None or opening.fence.startswith(block.fence)):
                block = opening
                continue
        if block:
            block.lines.append(block.inside(line))
    if block and (block.sure or block.labelled):
        return None
    return code if code and code.text.strip() else None


def _closes(rest: str, fence_alone_follows: bool) -> bool:
    """Whether a fence closes its block, by what follows it on its line."""
    if not rest.strip():
        return True
    return not fence_alone_follows if rest[0] in " \t" else not re.match(r"[\w{]", rest)


def _opening(line: str, then: int) -> _Block | None:
    """The block that a line outside of blocks opens; the next line begins at `then`."""
    marks = (_MARKS.match(line) or [""])[0]
    _, mark, inner = marks.rpartition(">")
    inner = inner.removeprefix(" ") if mark else inner
    found = _FENCE.fullmatch(line, len(marks))
    if found and not (found[1][0] == "`" and "`" in found[2]):
        label = bool(found[2].strip())
        return _Block(found[1], len(inner.expandtabs(4)), marks.count(">"), True, label, then)
    block = _opening_at_the_end(line, then)
    if block:
        block.indent, block.quotes = _indent(inner), marks.count(">")
    return block


def _opening_at_the_end(line: str, then: int) -> _Block | None:
    """The block that the end of a line opens, where backticks on it do not pair off."""
    found = _FENCE_AT_THE_END.search(line)
    if not found or len(re.findall("`{3,}", line)) % 2 == 0:
        return None
    return _Block(found[1], 0, 0, sure=False, labelled=bool(found[2]), start=then)


def _indent(line: str) -> int:
    """The columns of blanks that a line begins with; tabs stop at every fourth."""
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4))


def _dedent(line: str, width: int) -> str:
    """`line` without the first `width` columns of the blanks that it begins with."""
    column, at = 0, 0
    while column < width and line[at : at + 1] in (" ", "\t"):
        column += 1 if line[at] == " " else 4 - column % 4
        at += 1
    return " " * (column - width) + line[at:]
