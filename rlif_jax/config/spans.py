"""The part of a completion that certainty terms read, as reward.over names it."""

import re
from dataclasses import dataclass

PARTS = ("response", "code", "thinking")
WINDOWS = ("tail", "lowest_window")
FORMS = f"{', '.join(PARTS)}, {', '.join(f'{name}(TOKENS)' for name in WINDOWS)}"


@dataclass(frozen=True)
class Span:
    """`kind` is one of PARTS or WINDOWS; `width` the tokens of a window, 0 for a part."""

    kind: str
    width: int = 0

    @property
    def part(self) -> str:
        """The part of the text that has to be found there, code or thinking; "" for none."""
        return self.kind if self.kind in PARTS[1:] else ""

    @classmethod
    def parse(cls, text: str) -> "Span":
        """From `response` or `tail(64)`. Raises ValueError for anything else."""
        if text in PARTS:
            return cls(text)
        found = re.fullmatch(rf"({'|'.join(WINDOWS)})\(([1-9]\d*)\)", text)
        if not found:
            raise ValueError(text)
        return cls(found[1], int(found[2]))
