"""Rows of problems in our own schema, and files of them."""

import json
from pathlib import Path

PAIR = {"input": "3 4\n", "output": "7\n"}
CALL = {"input": [[3, 1], True], "output": [1, 3]}
SUM = "print(sum(map(int, input().split())))"


def own(name: str, **fields) -> dict:
    """A good row, with a statement of its own."""
    return {"id": name, "prompt": f"Add the numbers of {name}.", "tests": [PAIR]} | fields


def replaced(**fields) -> dict:
    """A good row with some fields replaced, or left out where they are None."""
    row = {"id": "sum", "prompt": "Add the numbers.", "tests": [PAIR]} | fields
    return {name: value for name, value in row.items() if value is not None}


def write_rows(folder: Path, *rows: dict | str, name: str = "set.jsonl") -> Path:
    """Write rows, or lines as they are, to a file."""
    path = folder / name
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path
