"""Plain text tables, for terminals, pipes and README alike."""

from collections.abc import Mapping, Sequence
from typing import Any


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows of cells as lines of equal columns: the first `left` flush left, the others right.

    A row may have fewer cells than the first one.
    """
    width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width[i]) if i < left else cell.rjust(width[i]) for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def labelled(overall: Any, groups: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """The parts of a result with their labels, in the order of rows; None under a heading."""
    rows = [("all", overall)]
    for grouping, parts in groups.items():
        rows.append((grouping, None))
        rows += [(f"  {value}", part) for value, part in parts.items()]
    return rows
