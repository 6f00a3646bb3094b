"""Results of a grading added up."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Results added up: passed and graded completions of each problem, verdicts, skipped rows.

    `expected` is the number of problems that should have a completion.
    """

    expected: int = 0
    problems: dict[str, tuple[int, int]] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    skipped: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of the output."""
        if "skipped" in row:
            self.skipped += 1
            return
        passed, graded = self.problems.get(row["id"], (0, 0))
        self.problems[row["id"]] = passed + row["passed"], graded + 1
        self.verdicts[row["verdict"]] += 1

    @property
    def graded(self) -> int:
        """Completions that were judged."""
        return self.verdicts.total()

    @property
    def passed(self) -> str:
        """How many of them passed, and their share."""
        passed = self.verdicts["passed"]
        return f"{passed} passed ({passed / max(self.graded, 1):.1%})"

    @property
    def pass_at_1(self) -> float:
        """Mean over problems with completions of the share of their completions that pass."""
        return self._passed_share / len(self.problems)

    @property
    def _passed_share(self) -> float:
        return math.fsum(passed / graded for passed, graded in self.problems.values())

    def summary(self) -> str:
        """All of it in a line."""
        parts = [f"graded {self.graded} completions of {len(self.problems)} problems"]
        if self.graded:
            parts[0] += f": {self.passed}"
            parts.append(f"pass@1 over problems {self.pass_at_1:.3f}")
        if (missing := self.expected - len(self.problems)) > 0:
            have = "problem has" if missing == 1 else "problems have"
            parts.append(
                f"{missing} {have} no completion, pass@1 over all {self.expected} problems "
                f"{self._passed_share / self.expected:.3f}"
            )
        if self.graded:
            parts.append(", ".join(f"{v} {n}" for v, n in sorted(self.verdicts.items())))
        if self.skipped:
            parts.append(f"{self.skipped} skipped, of problems in LiveCodeBench's errata")
        return "; ".join(parts)
