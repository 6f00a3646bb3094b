"""Ranges of numbers, declared beside a field: `steps: Annotated[int, at_least(1)] = 10`."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; an open end is left out.

    NaN lies in no range, infinity only in one that is `infinite`. `words` name the range.
    """

    words: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    infinite: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with a number, to be read after its name; None if it is in the range."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        if not (above and below):
            return f"must be {self.words}"
        if abs(value) == math.inf and not self.infinite:
            return f"must be {FINITE.words}"
        return None


FINITE = Range("a finite number")


def at_least(low: float) -> Range:
    """`low` or more."""
    return Range(f"at least {low}", low)


def positive(infinite: bool = False) -> Range:
    """More than 0; `infinite` allows infinity, which then stands for no limit."""
    return Range("positive", 0, open_low=True, infinite=infinite)


def between(low: float, high: float, open_low: bool = False, open_high: bool = False) -> Range:
    """`low` to `high`; an open end is left out."""
    words = f"in {'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
    return Range(words, low, high, open_low, open_high)
