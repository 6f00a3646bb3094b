"""Files of rows, and the problems of the sets that are built from them."""

import json
from pathlib import Path

from rlif_jax.data.sets.named import problem_source


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def problems(name: str, split: str) -> list:
    source = problem_source(name, split)
    return [source[i] for i in range(len(source))]
