"""Training problems from the study's two sources, as the JSON lines that base.py names.

    hf download PRIME-RL/Eurus-2-RL-Data --repo-type dataset --local-dir eurus2
    python -m configs.paper.problems eurus2/data/train-*.parquet --out paper_problems.jsonl

The study draws about 6.7K problems from code_contests and codeforces. Eurus-2-RL-Data has problems
of both, by these names in `data_source`; we do not know whether the study's are among them. Kept
are problems for a program that reads standard input, in rows that can be judged, each statement
once. The request for Python at the end of a statement is cut off: a run's prompt style makes its
own.
"""

import argparse
import collections
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from rlif_jax.data.formats.detect import problem_from_any
from rlif_jax.errors import UserError, exit_on_user_error

SOURCES = ("codecontests", "codeforces")
REQUEST = re.compile(
    r"\s*Write Python code to solve the problem\. Present the code in\s*```python\s*Your code\s*"
    r"```\s*at the end\.(?:\s*You need to think first then write the Python code\.)?\s*$"
)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file whose `data_source` is one of `SOURCES`; UserError for another."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                yield from (row for row in batch.to_pylist() if row["data_source"] in SOURCES)
    except (OSError, KeyError, pyarrow.ArrowInvalid) as error:
        raise UserError(
            f"{path} is not a parquet file of Eurus-2-RL-Data ({type(error).__name__}: {error}); "
            "name its files data/train-*.parquet."
        ) from error


def kept(rows: Iterator[dict[str, Any]], left_out: collections.Counter[str]) -> Iterator[str]:
    """A line of JSON for each row to train on; `left_out` counts the others by their reason."""
    seen: set[str] = set()
    for row in rows:
        for message in row["prompt"]:
            message["content"] = REQUEST.sub("", message["content"])
        try:
            problem = problem_from_any(row)
        except UserError:
            left_out["cannot be judged"] += 1
            continue
        if problem.entry_point is not None:
            left_out["ask for a function"] += 1
        elif seen & {problem.id, problem.prompt}:
            left_out["repeat another"] += 1
        else:
            seen |= {problem.id, problem.prompt}
            yield json.dumps(row)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the parquet files and write the file of problems."""
    parser = argparse.ArgumentParser(description="Problems of code_contests and codeforces.")
    parser.add_argument("files", nargs="+", type=Path, help="train-*.parquet of Eurus-2-RL-Data")
    parser.add_argument("--out", type=Path, default=Path("paper_problems.jsonl"))
    args = parser.parse_args(argv)
    left_out, count = collections.Counter(), 0
    partial = args.out.with_name(f"{args.out.name}.partial")
    with exit_on_user_error():
        try:
            with partial.open("w") as out:
                for line in kept((row for path in args.files for row in rows_of(path)), left_out):
                    out.write(f"{line}\n")
                    count += 1
            if not count:
                raise UserError(f"no row of {', '.join(map(str, args.files))} can be trained on.")
            os.replace(partial, args.out)
        finally:
            partial.unlink(missing_ok=True)
    print(f"{count} problems in {args.out}")
    for reason, number in left_out.most_common():
        print(f"left out: {number} that {reason}")


if __name__ == "__main__":
    main()
